"""Batches of several steps, made together: one large operation costs less than many small ones."""

from dataclasses import dataclass, field

from torch import Tensor

from lisbet.training.datasets.sampler import Batch, Sampler

AT_ONCE = 128
"""Windows of each task that are made together, where batches are smaller."""


@dataclass
class BatchBuffer:
    """Makes the batches of some steps at a time, and keeps those that are not used yet.

    A batch is the same as `Sampler.batch` makes it.

    Parameters
    ----------
    sampler : Sampler
        What makes them.
    noise_std : float
        Standard deviation of the noise on embeddings.
    embedding_dim : int
        Size of an embedding.
    """

    sampler: Sampler
    noise_std: float
    embedding_dim: int
    _made: dict[tuple[int, int], dict[tuple[int, int], tuple[Batch, dict[str, Tensor] | None]]] = (
        field(default_factory=dict, init=False)
    )
    """By rows, and by epoch and step."""

    def batch(self, epoch: int, step: int, rows: slice) -> tuple[Batch, dict[str, Tensor] | None]:
        """Return the rows of a global batch, and the noise on their embeddings.

        Parameters
        ----------
        epoch, step : int
            Which batch.
        rows : slice
            Its rows, with a start and a stop.
        """
        own = (rows.start, rows.stop)
        if (epoch, step) not in self._made.get(own, ()):
            self._made[own] = self._make(epoch, self._steps(step, rows), rows)
        return self._made[own].pop((epoch, step))

    def _steps(self, step: int, rows: slice) -> range:
        """Return the steps, from this one on, whose batches are made together."""
        count = AT_ONCE // (rows.stop - rows.start)
        if count < 2 or any(bank.moves for bank in self.sampler.banks.values()):
            return range(step, step + 1)
        return range(step, max(step + 1, min(step + count, self.sampler.steps)))

    def _make(
        self, epoch: int, steps: range, rows: slice
    ) -> dict[tuple[int, int], tuple[Batch, dict[str, Tensor] | None]]:
        size = rows.stop - rows.start
        windows = self.sampler.batches(epoch, steps, rows)
        noise = self.sampler.noise(epoch, steps, rows, self.noise_std, self.embedding_dim)
        made = {}
        for number, step in enumerate(steps):
            part = slice(number * size, (number + 1) * size)
            batch = {name: (own[part], labels[part]) for name, (own, labels) in windows.items()}
            own_noise = (
                None if noise is None else {name: all_[part] for name, all_ in noise.items()}
            )
            made[epoch, step] = batch, own_noise
        return made
