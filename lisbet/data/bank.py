"""All recordings of a dataset in one tensor, and batches of windows gathered from it.

Suffixes of names tell their axes: B samples, W frames of a window, P parts of a window (before
and after its cut), G groups (one, or one for each individual).
"""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from lisbet.config import Features, Window
from lisbet.data.draws import pick
from lisbet.data.record import Record


@dataclass(frozen=True, eq=False)
class Bank:
    """The prepared tracks of many recordings, one behind the other.

    A frame of zeros stands before, between and after the recordings: frames outside a recording
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
    """

    tracks: Tensor = field(repr=False)
    ids: tuple[str, ...]
    starts: np.ndarray
    lengths: np.ndarray
    features: Features

    @classmethod
    def from_records(cls, records: list[Record]) -> "Bank":
        """Copy prepared recordings into one bank, in host memory."""
        lengths = np.array([record.frames for record in records], dtype=np.int64)
        starts = np.cumsum(np.concatenate([[1], lengths[:-1] + 1]))
        features = records[0].features
        tracks = np.zeros((int(lengths.sum()) + len(records) + 1, *features.shape), np.float32)
        for start, record in zip(starts, records, strict=True):
            assert record.features == features
            target = tracks[start : start + record.frames]
            target[...] = record.position
            np.nan_to_num(target, copy=False, nan=0.0)
        ids = tuple(record.id for record in records)
        return cls(torch.from_numpy(tracks), ids, starts, lengths, features)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def frames(self) -> int:
        """Number of frames of all recordings."""
        return int(self.lengths.sum())

    @property
    def bytes(self) -> int:
        """Memory that the tracks take."""
        return self.tracks.numel() * self.tracks.element_size()

    @cached_property
    def ends(self) -> np.ndarray:
        """(recordings,): number of frames up to and including each recording."""
        return np.cumsum(self.lengths)

    def subset(self, ids: tuple[str, ...]) -> "Bank":
        """Return a view of some recordings; the tracks are shared."""
        index = [self.ids.index(record_id) for record_id in ids]
        return replace(self, ids=ids, starts=self.starts[index], lengths=self.lengths[index])

    def to(self, device: torch.device) -> "Bank":
        """Return the bank with its tracks on a device."""
        return replace(self, tracks=self.tracks.to(device))

    def fingerprint(self) -> str:
        """Return a hash of the ids, names and prepared tracks of these recordings."""
        digest = hashlib.sha256(self.features.model_dump_json().encode())
        for record_id, start, length in zip(self.ids, self.starts, self.lengths, strict=True):
            digest.update(f"{record_id}:{length}".encode())
            digest.update(self.tracks[start : start + length].cpu().numpy().tobytes())
        return digest.hexdigest()

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
class Plan:
    """Which frames the windows of a batch are made of.

    Parameters
    ----------
    record, frame : ndarray
        (B, P, G), int64. The recording and the target frame that a part of a window (before and
        after `cut`, or one part) takes for a group (all individuals, or each one).
    cut : ndarray, optional
        (B,), int64. The first frame of the window that comes from the second part.
    speed : ndarray, optional
        (B,), float64. The window holds speed·size frames, resampled; with one part only.
    """

    record: np.ndarray
    frame: np.ndarray
    cut: np.ndarray | None = None
    speed: np.ndarray | None = None

    @classmethod
    def plain(cls, record: np.ndarray, frame: np.ndarray) -> "Plan":
        """Take whole windows ending at one frame each; both (B,)."""
        return cls(record[:, None, None], frame[:, None, None])

    @classmethod
    def mixed(
        cls,
        first: tuple[np.ndarray, np.ndarray],
        second: tuple[np.ndarray, np.ndarray],
        split: np.ndarray,
        individuals: int,
    ) -> "Plan":
        """Take individuals 0 … split-1 from one window and the others from a second.

        `first` and `second` are (record, frame), each (B,), and `split` is (B,).
        """
        later = np.arange(individuals) >= split[:, None]
        record, frame = (
            np.where(later, b[:, None], a[:, None])[:, None]
            for a, b in zip(first, second, strict=True)
        )
        return cls(record, frame)

    def __getitem__(self, rows: slice) -> "Plan":
        return Plan(
            self.record[rows],
            self.frame[rows],
            None if self.cut is None else self.cut[rows],
            None if self.speed is None else self.speed[rows],
        )


def gather(bank: Bank, plan: Plan, window: Window) -> Tensor:
    """Cut the windows of a batch out of the bank.

    Parameters
    ----------
    bank : Bank
        Where from; the work is done on its device.
    plan : Plan
        Which frames.
    window : Window
        Size, and offset of the target frame.

    Returns
    -------
    Tensor
        (B, W, individuals, keypoints, space), float32. Frames outside a recording are zeros.
    """
    device = bank.tracks.device
    groups = plan.record.shape[-1]
    start = bank.starts[plan.record]
    rows = np.stack([start + plan.frame, start - 1, start + bank.lengths[plan.record]])
    # Each group has rows of its own in the bank: frame r of group g is row r·groups + g.
    rows = torch.from_numpy(rows * groups + np.arange(groups)).to(device)
    parts = [Part(*rows[:, :, part, None]) for part in range(rows.shape[2])]
    time_W1 = torch.arange(window.size, device=device)[:, None]
    if plan.speed is not None:
        assert len(parts) == 1
        return _resampled(bank, parts[0], plan.speed, window, time_W1)
    offset_W1 = groups * (time_W1 - (window.size - 1 - window.offset))
    rows_BWG = parts[0].at(offset_W1)
    if plan.cut is not None:
        cut_B11 = torch.from_numpy(plan.cut).to(device)[:, None, None]
        rows_BWG = torch.where(time_W1 < cut_B11, rows_BWG, parts[1].at(offset_W1))
    return _read(bank, rows_BWG)


class Part(NamedTuple):
    """Rows of the bank for a part of each window, all (B, 1, G): its target and its limits."""

    target: Tensor
    low: Tensor
    high: Tensor

    def at(self, offset: Tensor) -> Tensor:
        """Return the rows at an offset; those outside the recording fall on the zeros beside it."""
        return torch.clamp(self.target + offset, self.low, self.high)


def _resampled(
    bank: Bank, part: Part, speed: np.ndarray, window: Window, time_W1: Tensor
) -> Tensor:
    """Take round(speed·size) frames and resample them linearly to the window's size."""
    device, groups = time_W1.device, part.target.shape[-1]
    # NumPy rounds here, on the host, so that every device takes the same frames.
    count_B11 = torch.from_numpy(np.round(speed * window.size).astype(np.int64)).to(device)
    after_B11 = torch.from_numpy(np.round(speed * window.offset).astype(np.int64)).to(device)
    count_B11, after_B11 = count_B11[:, None, None], after_B11[:, None, None]
    # Frame t of the window lies at t·(count-1)/(size-1) of those taken: whole numbers first.
    scaled_BW1 = time_W1 * (count_B11 - 1)
    left_BW1 = scaled_BW1 // (window.size - 1)
    share_BW1 = (scaled_BW1 - left_BW1 * (window.size - 1)).float() / (window.size - 1)
    offset_BW1 = groups * (left_BW1 + (after_B11 - (count_B11 - 1)))
    rows_BWG2 = torch.stack([part.at(offset_BW1), part.at(offset_BW1 + groups)], dim=-1)
    share_BWG = share_BW1.expand(rows_BWG2.shape[:-1])
    # A bag of two weighted rows is the lerp in one pass, without a tensor for either side.
    taken = embedding_bag(
        rows_BWG2.view(-1, 2),
        _grouped(bank, groups),
        mode="sum",
        per_sample_weights=torch.stack([1 - share_BWG, share_BWG], dim=-1).view(-1, 2),
    )
    return taken.view(*rows_BWG2.shape[:2], *bank.tracks.shape[1:])


def _read(bank: Bank, rows_BWG: Tensor) -> Tensor:
    taken = _grouped(bank, rows_BWG.shape[-1]).index_select(0, rows_BWG.reshape(-1))
    return taken.view(*rows_BWG.shape[:2], *bank.tracks.shape[1:])


def _grouped(bank: Bank, groups: int) -> Tensor:
    """Return the bank as rows: whole frames (one group), or single individuals of a frame."""
    return bank.tracks.view(bank.tracks.shape[0] * groups, -1)
