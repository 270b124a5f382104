"""How the global batch is divided into micro-batches: by process and by accumulation step."""

from dataclasses import dataclass

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from lisbet.core.errors import ConfigError
from lisbet.distributed.memory_policy import activation_limit
from lisbet.training.datasets.sampler import Batch


@dataclass(frozen=True)
class Batching:
    """Sizes of the batches of one optimizer step.

    Parameters
    ----------
    batch_size : int
        Windows of each task in a step, over all processes.
    processes : int
        Number of processes.
    micro_batch_size : int
        Windows of each task in one forward pass of one process.
    """

    batch_size: int
    processes: int
    micro_batch_size: int

    @classmethod
    def of(cls, batch_size: int, processes: int, micro_batch_size: int | None) -> "Batching":
        """Check that the sizes divide; without a micro-batch size, a step is one forward pass.

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
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches of each process in one optimizer step."""
        return self.batch_size // (self.processes * self.micro_batch_size)

    def micro_batches(self, rank: int) -> list[slice]:
        """Return the rows of the global batch in each micro-batch of a process."""
        own = self.gradient_accumulation_steps * self.micro_batch_size
        starts = range(rank * own, (rank + 1) * own, self.micro_batch_size)
        return [slice(start, start + self.micro_batch_size) for start in starts]

    def fitted(self, model: nn.Module, row: Batch, device: torch.device) -> "Batching":
        """Return the largest micro-batch that fits in memory, the same on all processes.

        The activations that backward needs are measured for one row and grow in proportion. The
        micro-batch is the largest divisor of a process's windows whose activations take at most
        `memory_policy.ACTIVATION_SHARE` of the free memory.

        Parameters
        ----------
        model : nn.Module
            The network, on the CPU.
        row : Batch
            One window of each task.
        device : torch.device
            Where the network will be.
        """
        fits = activation_limit(device) // max(1, activation_bytes(model, row))
        own = self.batch_size // self.processes
        micro = max((n for n in divisors(own) if n <= fits), default=1)
        return Batching(self.batch_size, self.processes, min(gather_object([micro])))

    def __str__(self) -> str:
        return (
            f"{self.batch_size} windows of each task = {self.processes} processes × "
            f"{self.gradient_accumulation_steps} micro-batches × {self.micro_batch_size}"
        )


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, ascending.

    Examples
    --------
    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [n for n in range(1, number + 1) if number % n == 0]


def activation_bytes(model: nn.Module, batch: Batch) -> int:
    """Return the bytes that a forward pass stores for backward, without the weights."""
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
