"""All recordings of a dataset in one tensor, and batches of windows gathered from it.

Suffixes of names tell their axes: B samples, W frames of a window, P parts of a window (before
and after its cut), G groups (one, or one for each individual).
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from lisbet.core.config import Features, Window
from lisbet.core.transfer import to_device
from lisbet.data.reading import fill
from lisbet.data.record import Record
from lisbet.data.rng import pick


@dataclass(frozen=True, eq=False)
class Bank:
    """The prepared tracks of many recordings, one behind the other.

    A frame of zeros is before, between and after the recordings: frames outside a recording
    are read from there.

    Parameters
    ----------
    tracks : Tensor
        (rows, individuals, keypoints, space), float32 in [0, 1]; a missing point is 0.
    ids : tuple of str
        Ids of the recordings.
    starts, lengths : ndarray
        (recordings,), int64. Row of the first frame, and number of frames.
    features : Features
        Names along the axes of `tracks`.
    labels : ndarray, optional
        (rows, behaviours), bool: what was seen in each frame.
    behaviors : tuple of str
        Names of the behaviours.
    """

    tracks: Tensor = field(repr=False)
    ids: tuple[str, ...]
    starts: np.ndarray
    lengths: np.ndarray
    features: Features
    labels: np.ndarray | None = field(default=None, repr=False)
    behaviors: tuple[str, ...] = ()

    @classmethod
    def from_records(cls, records: list[Record]) -> "Bank":
        """Copy prepared recordings into one bank, in host memory."""
        return cls.outline(records).filled(records)

    @classmethod
    def outline(cls, records: list[Record]) -> "Bank":
        """Return the bank that these recordings would make, without their tracks."""
        lengths = np.array([record.frames for record in records], dtype=np.int64)
        starts = np.cumsum(np.concatenate([[1], lengths[:-1] + 1]))
        features = records[0].features
        assert all(r.features is features or r.features == features for r in records)
        ids = tuple(record.id for record in records)
        empty = torch.empty((0, *features.shape))
        return cls(empty, ids, starts, lengths, features)._with_labels(records)

    def filled(self, records: list[Record], tracks: np.ndarray | None = None) -> "Bank":
        """Return the bank with its tracks, in memory of its own or in given one, all zeros."""
        shape = (self.rows, *self.features.shape)
        tracks = np.zeros(shape, np.float32) if tracks is None else tracks
        fill(records, tracks, self.starts)
        return replace(self, tracks=torch.from_numpy(tracks))

    def _with_labels(self, records: list[Record]) -> "Bank":
        """Add the behaviours of those recordings that have annotations."""
        if not any(record.labels for record in records):
            return self
        behaviors = next(record.labels.behaviors for record in records if record.labels)
        active = np.zeros((self.rows, len(behaviors)), dtype=bool)
        for start, record in zip(self.starts, records, strict=True):
            if record.labels is not None:
                assert record.labels.behaviors == behaviors
                active[start : start + record.frames] = record.labels.active
        return replace(self, labels=active, behaviors=behaviors)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def frames(self) -> int:
        """Number of frames of all recordings."""
        return int(self.lengths.sum())

    @property
    def rows(self) -> int:
        """Rows of the tracks of these recordings, and of the zeros around them."""
        return self.frames + len(self) + 1

    @property
    def bytes(self) -> int:
        """Memory that the tracks of these recordings take."""
        return self.rows * self.features.size * 4

    @cached_property
    def ends(self) -> np.ndarray:
        """(recordings,): number of frames up to and including each recording."""
        return np.cumsum(self.lengths)

    def subset(self, numbers: list[int]) -> "Bank":
        """Return a view of some recordings, by their numbers; the tracks are shared."""
        return replace(
            self,
            ids=tuple(self.ids[number] for number in numbers),
            starts=self.starts[numbers],
            lengths=self.lengths[numbers],
        )

    def to(self, device: torch.device) -> "Bank":
        """Return the bank with its tracks on a device."""
        return replace(self, tracks=self.tracks.to(device))

    def recording(self, number: int) -> slice:
        """Return the rows of one recording."""
        return slice(self.starts[number], self.starts[number] + self.lengths[number])

    def active(self) -> np.ndarray:
        """Return the behaviours of all frames of these recordings: (frames, behaviours), bool."""
        assert self.labels is not None
        return np.concatenate([self.labels[self.recording(n)] for n in range(len(self))])

    @property
    def moves(self) -> bool:
        """Whether `at` returns other recordings at other steps."""
        return False

    def at(self, epoch: int, step: int, steps: int) -> "Bank":
        """Return the recordings to draw from at a step of an epoch of `steps`: here, always all."""
        del epoch, step, steps
        return self

    def draw(self, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw frames, uniform over all frames of all recordings.

        Returns
        -------
        record, frame : ndarray
            (B,), int64. Long recordings come up in proportion.
        """
        return self.locate(pick(uniform, self.frames))

    def locate(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the recording and the frame in it of frames counted over all recordings."""
        record = np.searchsorted(self.ends, number, side="right")
        return record, number - (self.ends - self.lengths)[record]


@dataclass(frozen=True)
class WindowIndex:
    """Which frames the windows of a batch are made of.

    Parameters
    ----------
    record, frame : ndarray
        (B, P, G), int64. The recording and the target frame that a part of a window (before and
        after `cut`, or one part) takes for a group (all individuals, or each one).
    cut : ndarray, optional
        (B,), int64. The first frame of the window that comes from the second part.
    speed : ndarray, optional
        (B,), float64. The window holds speed·size frames, resampled to its size.
    """

    record: np.ndarray
    frame: np.ndarray
    cut: np.ndarray | None = None
    speed: np.ndarray | None = None

    @classmethod
    def plain(cls, record: np.ndarray, frame: np.ndarray) -> "WindowIndex":
        """Take whole windows ending at one frame each; both (B,)."""
        return cls(record[:, None, None], frame[:, None, None])

    @classmethod
    def mixed(
        cls,
        first: tuple[np.ndarray, np.ndarray],
        second: tuple[np.ndarray, np.ndarray],
        split: np.ndarray,
        individuals: int,
    ) -> "WindowIndex":
        """Take individuals 0 … split-1 from one window and the others from a second.

        `first` and `second` are (record, frame), each (B,), and `split` is (B,).
        """
        later = np.arange(individuals) >= split[:, None]
        record, frame = (
            np.where(later, b[:, None], a[:, None])[:, None]
            for a, b in zip(first, second, strict=True)
        )
        return cls(record, frame)


def gather(bank: Bank, index: WindowIndex, window: Window) -> Tensor:
    """Cut the windows of a batch out of the bank.

    Parameters
    ----------
    bank : Bank
        Where from; the work is done on its device.
    index : WindowIndex
        Which frames.
    window : Window
        Size, and offset of the target frame.

    Returns
    -------
    Tensor
        (B, W, individuals, keypoints, space), float32. Frames outside a recording are zeros.
    """
    device = bank.tracks.device
    groups = index.record.shape[-1]
    start = bank.starts[index.record]
    limits = np.stack([start + index.frame, start - 1, start + bank.lengths[index.record]])
    # Each group has rows of its own in the bank: frame r of group g is row r·groups + g.
    limits = limits * groups + np.arange(groups)
    # Half the bytes where they do: the arithmetic on rows is most of the work besides reading.
    small = bank.tracks.shape[0] * groups < 2**31
    ends = to_device(limits.astype(np.int32 if small else np.int64), device)
    time_W = torch.arange(window.size, device=device, dtype=ends.dtype)
    weights_B1WN = None
    if index.speed is None:
        offset_BGWN = groups * (time_W - (window.size - 1 - window.offset))[None, None, :, None]
    else:
        left_B1W, weights_B1WN = _resampling(index.speed, window, time_W)
        offset_BGWN = groups * torch.stack([left_B1W, left_B1W + 1], dim=-1)
    # Rows outside the recording are the zeros next to it.
    parts_BGWN = [
        torch.clamp(target + offset_BGWN, low, high)
        for target, low, high in ends.permute(2, 0, 1, 3)[..., None, None]
    ]
    if index.cut is None:
        rows_BGWN = parts_BGWN[0]
    else:
        cut_B111 = to_device(index.cut, device)[:, None, None, None]
        rows_BGWN = torch.where(time_W[:, None] < cut_B111, parts_BGWN[0], parts_BGWN[1])
    return _read(bank, rows_BGWN, weights_B1WN)


def _resampling(speed: np.ndarray, window: Window, time_W: Tensor) -> tuple[Tensor, Tensor]:
    """Resample the round(speed·size) frames up to round(speed·offset) after the target.

    Returns
    -------
    left : Tensor
        (B, 1, W): the frame before each frame of the window, counted from the target.
    weights : Tensor
        (B, 1, W, 2): of that frame and the next, for linear interpolation.
    """
    # NumPy rounds here, on the host, so that every device takes the same frames.
    last_B = np.round(speed * window.size) - 1
    first_B = np.round(speed * window.offset) - last_B
    last_B11, first_B11 = (
        to_device(values.astype(np.int64), time_W.device)[:, None, None]
        for values in (last_B, first_B)
    )
    # Frame t of the window lies at t·last/(size-1) of those taken: whole numbers first.
    scaled_B1W = time_W.long() * last_B11
    left_B1W = scaled_B1W // (window.size - 1)
    # Divided by a tensor: by a number, a GPU multiplies with its inverse, which rounds otherwise.
    steps = torch.full((1,), window.size - 1, device=time_W.device, dtype=torch.float32)
    share_B1W = (scaled_B1W - left_B1W * (window.size - 1)).float() / steps
    return (left_B1W + first_B11).to(time_W.dtype), torch.stack([1 - share_B1W, share_B1W], dim=-1)


def _read(bank: Bank, rows_BGWN: Tensor, weights_B1WN: Tensor | None) -> Tensor:
    """Sum N weighted rows of the bank for each frame of each window, in one pass.

    A group's rows are whole frames (one group), or one individual's part of each frame. A bag of
    one row is a copy, and faster than index_select, which does not read ahead.
    """
    groups, frames, count = rows_BGWN.shape[1:]
    if weights_B1WN is not None:
        weights_B1WN = weights_B1WN.expand(rows_BGWN.shape).transpose(1, 2).reshape(-1, count)
    taken = embedding_bag(
        rows_BGWN.transpose(1, 2).reshape(-1, count),
        bank.tracks.view(bank.tracks.shape[0] * groups, -1),
        mode="sum",
        per_sample_weights=weights_B1WN,
    )
    return taken.view(-1, frames, *bank.tracks.shape[1:])
