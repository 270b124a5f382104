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
    rows = rows * groups + np.arange(groups)
    # Half the bytes where they do: the arithmetic on rows is most of the work beside the reading.
    small = bank.tracks.shape[0] * groups < 2**31
    rows = torch.from_numpy(rows.astype(np.int32 if small else np.int64)).to(device)
    parts = [Part(*rows[:, :, part, :, None]) for part in range(rows.shape[2])]
    time_W = torch.arange(window.size, device=device, dtype=rows.dtype)
    if plan.speed is not None:
        assert len(parts) == 1
        return _resampled(bank, parts[0], plan.speed, window, time_W)
    offset_W = groups * (time_W - (window.size - 1 - window.offset))
    rows_BGW = parts[0].at(offset_W)
    if plan.cut is not None:
        cut_B11 = torch.from_numpy(plan.cut).to(device)[:, None, None]
        rows_BGW = torch.where(time_W < cut_B11, rows_BGW, parts[1].at(offset_W))
    return _read(bank, rows_BGW[..., None])


class Part(NamedTuple):
    """Rows of the bank for a part of each window, all (B, G, 1): its target and its limits."""

    target: Tensor
    low: Tensor
    high: Tensor

    def at(self, offset: Tensor) -> Tensor:
        """Return the rows at an offset; those outside the recording fall on the zeros beside it."""
        return torch.clamp(self.target + offset, self.low, self.high)


def _resampled(bank: Bank, part: Part, speed: np.ndarray, window: Window, time_W: Tensor) -> Tensor:
    """Take round(speed·size) frames and resample them linearly to the window's size."""
    groups = part.target.shape[1]
    # NumPy rounds here, on the host, so that every device takes the same frames.
    last_B = np.round(speed * window.size) - 1
    first_B = np.round(speed * window.offset) - last_B
    last_B11, first_B11 = (
        torch.from_numpy(values).to(time_W)[:, None, None] for values in (last_B, first_B)
    )
    # Frame t of the window lies at t·last/(size-1) of those taken: whole numbers first.
    scaled_B1W = time_W * last_B11
    left_B1W = scaled_B1W // (window.size - 1)
    share_B1W = (scaled_B1W - left_B1W * (window.size - 1)).float() / (window.size - 1)
    offset_B1W = groups * (left_B1W + first_B11)
    rows_BGW2 = torch.stack([part.at(offset_B1W), part.at(offset_B1W + groups)], dim=-1)
    share_BGW = share_B1W.expand(rows_BGW2.shape[:-1])
    weights_BGW2 = torch.stack([1 - share_BGW, share_BGW], dim=-1)
    return _read(bank, rows_BGW2, weights_BGW2)


def _read(bank: Bank, rows_BGWN: Tensor, weights_BGWN: Tensor | None = None) -> Tensor:
    """Sum N weighted rows of the bank for each frame of each window, in one pass.

    A group's rows are whole frames (one group), or one individual's part of each frame. A bag of
    one row is a copy; it is a quarter faster than index_select, which does not read ahead.
    """
    groups, frames, count = rows_BGWN.shape[1:]
    taken = embedding_bag(
        rows_BGWN.transpose(1, 2).reshape(-1, count),
        bank.tracks.view(bank.tracks.shape[0] * groups, -1),
        mode="sum",
        per_sample_weights=None
        if weights_BGWN is None
        else weights_BGWN.transpose(1, 2).reshape(-1, count),
    )
    return taken.view(-1, frames, *bank.tracks.shape[1:])
