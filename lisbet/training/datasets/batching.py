"""How the global batch is shared out: to processes, and to the passes of one step on each."""

from dataclasses import dataclass

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from lisbet.core.errors import ConfigError
from lisbet.distributed import environment
from lisbet.distributed.memory import available_memory
from lisbet.training.datasets.sampler import Batch

MEMORY_SHARE = 0.5
"""One pass may keep this share of the free memory of its device for its backward."""


@dataclass(frozen=True)
class Batching:
    """The arithmetic of a step.

    Parameters
    ----------
    batch_size : int
        Windows of each task in a step, over all processes.
    processes : int
        Number of processes.
    micro_batch_size : int
        Windows of each task in one pass of one process.
    """

    batch_size: int
    processes: int
    micro_batch_size: int

    @classmethod
    def of(cls, batch_size: int, processes: int, micro_batch_size: int | None) -> "Batching":
        """Check that everything divides; without a micro-batch size, a step is one pass.

        Raises
        ------
        ConfigError
            If it does not; the message offers the nearest sizes that do.
        """
        own, left = divmod(batch_size, processes)
        if left or not own:
            near = {max(1, own) * processes, (own + 1) * processes}
            raise ConfigError(
                f"--batch_size={batch_size} does not divide among {processes} processes; "
                f"the nearest that do: {', '.join(map(str, sorted(near)))}"
            )
        micro = micro_batch_size or own
        if own % micro:
            fits = divisors(own)
            near = {max(n for n in fits if n < micro), min(n for n in fits if n > micro)} \
                if micro < own else {own}  # fmt: skip
            raise ConfigError(
                f"--micro_batch_size={micro} does not divide the {own} windows of each process "
                f"(--batch_size={batch_size}, {processes} processes); the nearest that do: "
                f"{', '.join(map(str, sorted(near)))}"
            )
        return cls(batch_size, processes, micro)

    @property
    def passes(self) -> int:
        """Passes of each process in one step: how many gradients are accumulated."""
        return self.batch_size // (self.processes * self.micro_batch_size)

    def rows(self, rank: int) -> list[slice]:
        """Return the rows of the global batch that each pass of a process takes."""
        first = rank * self.passes * self.micro_batch_size
        starts = range(first, first + self.passes * self.micro_batch_size, self.micro_batch_size)
        return [slice(start, start + self.micro_batch_size) for start in starts]

    def fitted(self, model: nn.Module, row: Batch, device: torch.device) -> "Batching":
        """Return the largest micro-batch that fits, the same on all processes.

        What backward keeps is counted for one row and grows in proportion; the rule is the largest
        divisor of a process's windows that keeps at most `MEMORY_SHARE` of the free memory.

        Parameters
        ----------
        model : nn.Module
            The network, on the CPU.
        row : Batch
            One window of each task.
        device : torch.device
            Where the network will be.
        """
        fits = _free_bytes(device) * MEMORY_SHARE // max(1, bytes_kept(model, row))
        own = self.batch_size // self.processes
        micro = max((n for n in divisors(own) if n <= fits), default=1)
        return Batching(self.batch_size, self.processes, min(gather_object([micro])))

    def __str__(self) -> str:
        return (
            f"{self.batch_size} windows of each task = {self.processes} processes × "
            f"{self.passes} passes × {self.micro_batch_size}"
        )


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, ascending.

    Examples
    --------
    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [n for n in range(1, number + 1) if number % n == 0]


def bytes_kept(model: nn.Module, batch: Batch) -> int:
    """Count the bytes that a forward keeps for its backward, weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model({name: windows.cpu() for name, (windows, _) in batch.items()})
    return sum(kept.values())


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory() // environment.local_count()
