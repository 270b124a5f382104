"""How much memory each part of the program may use: the only place with such rules.

All rules follow from `available_memory`, which knows the limits of jobs and containers. A run
writes what it decided into run_config.yml (``bank_memory``) and its checkpoints
(``micro_batch_size``), and a resumed run uses that.
"""

from typing import TYPE_CHECKING

from lisbet.distributed import environment
from lisbet.distributed.memory import available_memory

if TYPE_CHECKING:
    import torch

BANK_SHARE = 0.5
"""Fraction of the free memory that recordings may take to be kept in memory as a whole."""
STREAMING_BYTES = 2 * 2**30
"""Most memory of each process for blocks of recordings that are not kept as a whole, unless the
user gives another limit: half of it for those that are held out, if any are."""
DEVICE_SHARE = 0.5
"""Fraction of the free memory of a GPU that recordings may take to be kept there."""
ACTIVATION_SHARE = 0.5
"""Fraction of the free memory of a device that the activations of a micro-batch may take."""
INFERENCE_SHARE = 0.25
"""Fraction of the free memory for recordings that a model is applied to; others are read twice."""
FILE_SHARE = 0.5
"""Fraction of the free memory that the values of one file may take."""


def bank_fits(size: int) -> bool:
    """Whether recordings of this size, in bytes, are kept in memory as a whole."""
    return size <= BANK_SHARE * available_memory()


def streaming_bytes(processes: int) -> int:
    """Return the memory for blocks of recordings of each of the processes of this machine."""
    return min(STREAMING_BYTES, int(BANK_SHARE * available_memory() / processes))


def fits_on_device(size: int, device: "torch.device") -> bool:
    """Whether recordings of this size, in bytes, are kept on a GPU."""
    return size <= DEVICE_SHARE * free_bytes(device)


def activation_limit(device: "torch.device") -> int:
    """Return the bytes that the activations of a micro-batch may take on a device."""
    return int(ACTIVATION_SHARE * free_bytes(device))


def inference_limit() -> int:
    """Return the bytes for recordings that this process applies a model to."""
    return int(INFERENCE_SHARE * available_memory() / environment.local_count())


def file_limit() -> int:
    """Return how many bytes the values of one file may take now."""
    return int(FILE_SHARE * available_memory())


def free_bytes(device: "torch.device") -> int:
    """Return the free memory of a device; of a CPU, the part of this process."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory() // environment.local_count()
