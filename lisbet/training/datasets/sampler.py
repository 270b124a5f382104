"""Batches of windows and labels, each a pure function of (seed, task, epoch, step, index)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lisbet.augment import Augmentation
from lisbet.augment.gauss_jitter import normals
from lisbet.core.config import Window
from lisbet.core.errors import DataError
from lisbet.core.transfer import to_device
from lisbet.data.bank import Bank, WindowIndex, gather
from lisbet.data.rng import uniforms
from lisbet.tasks import Task

EXAMPLES = 4096
"""Samples from which the scale of computed labels and of the input is taken."""
Batch = dict[str, tuple[Tensor, Tensor]]
"""By task: windows (batch, frames, individuals, keypoints, space) and labels (batch, …)."""


@dataclass(frozen=True)
class Sampler:
    """Draws the batches of one part of the data.

    Parameters
    ----------
    part : str
        "train" or "dev": other parts, other random numbers.
    tasks : dict of Task
        What to sample, by name.
    banks : dict of Bank
        Where from, by task.
    window : Window
        The window of every sample.
    seed : int
        Seed of the run.
    batch_size : int
        Windows of each task in a global batch.
    sample : float
        Share of the frames that makes an epoch.
    fps_scaling : float
        Frames of the recordings for one frame of a window.
    augmentations : tuple of Augmentation
        Changes of the windows, in order.
    device : torch.device
        Where the batches go.
    """

    part: str
    tasks: dict[str, Task]
    banks: dict[str, Bank]
    window: Window
    seed: int
    batch_size: int
    sample: float
    fps_scaling: float
    augmentations: tuple[Augmentation, ...]
    device: torch.device

    @property
    def steps(self) -> int:
        """Steps of an epoch: ceil(frames of the smallest task / batch size) times `sample`."""
        frames = min(bank.frames for bank in self.banks.values())
        return max(1, round(-(-frames // self.batch_size) * self.sample))

    def bank(self, name: str, epoch: int, step: int) -> Bank:
        """Return the recordings that a task's samples of a step are drawn from."""
        return self.banks[name].at(epoch, step, self.steps)

    def batch(self, epoch: int, step: int, rows: slice) -> Batch:
        """Make the rows of a global batch that are this process's share."""
        return self.batches(epoch, range(step, step + 1), rows)

    def batches(self, epoch: int, steps: range, rows: slice) -> Batch:
        """Make the batches of consecutive steps, one behind the other.

        Where recordings move (`Bank.moves`) there can be only one step.
        """
        return {name: self._samples(name, epoch, steps, rows) for name in self.tasks}

    def noise(
        self, epoch: int, steps: range, rows: slice, std: float, size: int
    ) -> dict[str, Tensor] | None:
        """Return Gaussian noise for the embeddings of the self-supervised tasks.

        Parameters
        ----------
        epoch, steps, rows
            See `batches`.
        std : float
            Standard deviation.
        size : int
            Of an embedding.

        Returns
        -------
        dict of Tensor or None
            By task: (steps·batch, size), float32; None if there is none.
        """
        names = [name for name, task in self.tasks.items() if not task.supervised]
        if std == 0 or not names:
            return None
        found = {}
        for name in names:
            uniform = self._uniform(name, "/embedding_noise", epoch, steps, rows, 1)
            keys = to_device((uniform[:, 0] * 2.0**53).astype(np.int64), self.device)
            found[name] = std * normals(keys, size)
        return found

    def draw(
        self, name: str, epoch: int, steps: range, rows: slice
    ) -> tuple[WindowIndex, np.ndarray]:
        """Choose the frames and labels of a task's samples, see `batches`."""
        uniform = self._uniform(name, "", epoch, steps, rows, self.tasks[name].columns)
        bank = self.bank(name, epoch, steps.start)
        index, labels = self.tasks[name].sample(uniform, bank, self.window)
        if self.fps_scaling != 1:
            speed = np.ones(len(labels)) if index.speed is None else index.speed
            index = replace(index, speed=self.fps_scaling * speed)
        return index, labels

    def _uniform(
        self, name: str, what: str, epoch: int, steps: range, rows: slice, columns: int
    ) -> np.ndarray:
        stream, count = f"{self.part}/{name}{what}", self.batch_size
        tables = [
            uniforms(self.seed, stream, epoch=epoch, step=step, rows=count, columns=columns)[rows]
            for step in steps
        ]
        return np.concatenate(tables)

    def _samples(self, name: str, epoch: int, steps: range, rows: slice) -> tuple[Tensor, Tensor]:
        bank = self.bank(name, epoch, steps.start)
        index, labels = self.draw(name, epoch, steps, rows)
        task = self.tasks[name]
        parts = self._parts(task, index)
        windows = [gather(bank, index, window).to(self.device) for window in parts]
        if task.transforms:
            uniform = self._uniform(name, "", epoch, steps, rows, task.columns)
            windows[0] = task.transform(windows[0], uniform)
        for number, augmentation in enumerate(self.augmentations):
            columns = 1 + augmentation.columns(bank.features)
            what = f"/{number}/{augmentation.name}"
            uniform = self._uniform(name, what, epoch, steps, rows, columns)
            for part in range(len(windows) if augmentation.geometric else 1):
                windows[part] = augmentation.apply(windows[part], uniform)
        if task.around is None:
            return windows[0], to_device(labels, self.device)
        if len(parts) > 1:
            return windows[0], task.measure(windows[1])
        (joined,), whole = windows, parts[0]
        own, around = (_cut(joined, whole, window) for window in (self.window, task.around))
        return own.contiguous(), task.measure(around)

    def _parts(self, task: Task, index: WindowIndex) -> list[Window]:
        """Return what to gather: the window, and what labels are computed from, in one if it can.

        It can if every frame is changed by itself, and nothing is resampled.
        """
        if task.around is None:
            return [self.window]
        alike = all(own.geometric and own.framewise for own in self.augmentations)
        if not alike or task.transforms or index.speed is not None:
            return [self.window, task.around]
        offset = max(self.window.offset, task.around.offset)
        before = max(own.size - own.offset for own in (self.window, task.around))
        return [Window(size=before + offset, offset=offset)]

    def examples(self, name: str) -> Tensor:
        """Return what a task computes labels from, of the first samples: see `Task.standardise`."""
        window = self.tasks[name].around
        assert window is not None
        rows, parts = slice(0, self.batch_size), []
        for step in range(min(self.steps, -(-EXAMPLES // self.batch_size))):
            index, _ = self.draw(name, 0, range(step, step + 1), rows)
            parts.append(gather(self.bank(name, 0, step), index, window).cpu())
        return torch.cat(parts)


def _cut(frames: Tensor, whole: Window, part: Window) -> Tensor:
    """Return the part of larger windows (B, W, …) that is a window itself."""
    end = whole.size - (whole.offset - part.offset)
    return frames[:, end - part.size : end]


def split(
    ids: tuple[str, ...], dev_ratio: float | None, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split recordings into those to train on and those to score on.

    Returns
    -------
    train, dev : tuple of str
        Ids in their own order; `dev` is empty without a ratio, else holds at least one.

    Raises
    ------
    DataError
        If nothing would be left to train on.
    """
    if dev_ratio is None:
        return ids, ()
    count = max(1, round(dev_ratio * len(ids)))
    if count >= len(ids):
        raise DataError(
            f"--dev_ratio={dev_ratio:g} holds out {count} of {len(ids)} recordings and leaves "
            "none to train on; hold out the last part of each recording with --dev_split=time "
            "--dev_ratio=0.2, choose a smaller ratio, or add recordings"
        )
    order = uniforms(seed, "split", epoch=0, step=0, rows=len(ids), columns=1)[:, 0]
    chosen = {ids[index] for index in np.argsort(order, kind="stable")[:count]}
    return (
        tuple(record_id for record_id in ids if record_id not in chosen),
        tuple(record_id for record_id in ids if record_id in chosen),
    )
