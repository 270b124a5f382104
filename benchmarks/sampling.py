"""How fast training windows are made: the bank against two ways of making them one at a time.

    python benchmarks/sampling.py [--seconds 1.0] [--draws torch|numpy] [--augment]
                                  [--default_allocator]

All make what a training step takes, windows (128, 200, 28) float32 and their labels, from the same
recordings, on one core, in turns within one run:

* bank      - draw, plan and gather a whole batch (this toolkit)
* slicing   - one sample at a time: draw it, slice it out of a NumPy array and pad it, collate 128
              of them with torch's DataLoader; the way of the published tool (0.4.3)
* xarray    - the same, each window cut by reindexing a labelled array

The last two draw their numbers one at a time, with a torch.Generator as the published tool does, or
with NumPy's generator, which is faster. Prints windows per second of each, and the ratio
bank / slicing: the median of the rounds, with the smallest and largest. With --augment all change
their windows by the three augmentations of the specification (p 0.5, 0.7, 0.3).
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import xarray as xr
from torch.utils.data import DataLoader, IterableDataset

from lisbet import augment
from lisbet.core.allocator import keep_freed_memory
from lisbet.core.config import Features, Window
from lisbet.data.bank import Bank
from lisbet.data.record import Record
from lisbet.tasks import TASKS
from lisbet.training.datasets.sampler import Sampler

FEATURES = Features(
    individuals=("resident", "intruder"),
    keypoints=("nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail"),
    space=("x", "y"),
)
WINDOW, BATCH, ROUNDS = Window(size=200), 128, 5
RECORDINGS, FRAMES = 40, 9000
AUGMENTATIONS = "all_perm_id:p=0.5,all_perm_ax:p=0.7,blk_perm_id:p=0.3:frac=0.2"


def slice_one(tracks: np.ndarray, frame: int, size: int, offset: int) -> np.ndarray:
    """Cut one window out of (frames, …), with zeros outside."""
    first = frame - size + 1 + offset
    last = frame + offset + 1
    inside = tracks[max(first, 0) : min(last, len(tracks))]
    before, after = max(-first, 0), max(last - len(tracks), 0)
    if before or after:
        inside = np.pad(inside, ((before, after), (0, 0), (0, 0), (0, 0)))
    return inside


def reindex_one(tracks: xr.DataArray, frame: int, size: int, offset: int) -> np.ndarray:
    """Cut one window out of a labelled array by reindexing its time."""
    wanted = np.arange(frame - size + 1 + offset, frame + offset + 1)
    return tracks.reindex(time=wanted, fill_value=0).to_numpy()


class TorchDraws:
    """The few methods of NumPy's generator that are needed, on a torch.Generator."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def random(self) -> float:
        """Draw from [0, 1)."""
        return torch.rand((1,), generator=self.generator).item()

    def integers(self, low: int, high: int | None = None) -> int:
        """Draw from low … high-1, or from 0 … low-1."""
        low, high = (0, low) if high is None else (low, high)
        return torch.randint(low, high, (1,), generator=self.generator).item()

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high)."""
        return low + (high - low) * self.random()


Draws = np.random.Generator | TorchDraws


class OneByOne(IterableDataset):
    """An endless stream of samples of one task, each made by itself."""

    def __init__(
        self,
        task: str,
        records: list,
        cut_one: Callable[..., np.ndarray],
        draws: str,
        *,
        augmented: bool,
    ) -> None:
        self.task, self.records, self.cut_one, self.draws = task, records, cut_one, draws
        self.augmented = augmented
        self.lengths = np.array([len(record) for record in records])
        self.ends = self.lengths.cumsum()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, float]]:
        rng = np.random.default_rng(0) if self.draws == "numpy" else TorchDraws()
        make = getattr(self, self.task)
        while True:
            x, label = make(rng)
            if self.augmented:
                x = self.changed(rng, x)
            yield torch.from_numpy(np.ascontiguousarray(x).reshape(WINDOW.size, -1)), label

    def draw(self, rng: Draws) -> tuple[int, int]:
        """Draw a recording and a frame of it."""
        number = rng.integers(self.ends[-1])
        record = int(np.searchsorted(self.ends, number, side="right"))
        return record, int(number - self.ends[record] + self.lengths[record])

    def window(self, record: int, frame: int, size: int = WINDOW.size) -> np.ndarray:
        """Cut a window that ends at a frame."""
        return self.cut_one(self.records[record], frame, size, WINDOW.offset)

    def mixed(self, rng: Draws, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Take some individuals from another window."""
        k = rng.integers(1, one.shape[1])
        return np.concatenate([one[:, :k], other[:, k:]], axis=1)

    def changed(self, rng: Draws, x: np.ndarray) -> np.ndarray:
        """Apply the three augmentations of the specification to one window."""
        if rng.random() < 0.5:
            x = x[:, self.permutation(rng, x.shape[1])]
        if rng.random() < 0.7:
            x = x[..., self.permutation(rng, x.shape[-1])]
        if rng.random() < 0.3:
            block = int(0.2 * WINDOW.size)
            start = rng.integers(1 - block, WINDOW.size)
            inside = slice(max(start, 0), min(start + block, WINDOW.size))
            x = x.copy()
            x[inside] = x[inside][:, self.permutation(rng, x.shape[1])]
        return x

    def permutation(self, rng: Draws, count: int) -> np.ndarray:
        """Draw a permutation until it is not the identity."""
        order = np.arange(count)
        while (order == np.arange(count)).all():
            order = np.argsort([rng.random() for _ in range(count)])
        return order

    def cons(self, rng: Draws) -> tuple[np.ndarray, float]:
        """Is the group consistent?"""
        record, frame = self.draw(rng)
        x = self.window(record, frame)
        if rng.random() >= 0.5:
            return x, 0.0
        other, moment = self.draw(rng)
        while other == record:
            other, moment = self.draw(rng)
        return self.mixed(rng, x, self.window(other, moment)), 1.0

    def order(self, rng: Draws) -> tuple[np.ndarray, float]:
        """Is the order right?"""
        record, frame = self.draw(rng)
        label = rng.random() < 0.5
        later = rng.integers(frame, self.lengths[record]) if label else rng.integers(frame + 1)
        s = rng.integers(1, WINDOW.size)
        pre, post = self.window(record, frame), self.window(record, int(later))
        return np.concatenate([pre[:s], post[s:]]), float(label)

    def shift(self, rng: Draws) -> tuple[np.ndarray, float]:
        """Is one animal shifted in time?"""
        record, frame = self.draw(rng)
        moment = int(rng.integers(max(frame - 60, 0), min(frame + 60, self.lengths[record])))
        x = self.mixed(rng, self.window(record, frame), self.window(record, moment))
        return x, float(moment > frame)

    def warp(self, rng: Draws) -> tuple[np.ndarray, float]:
        """Is the speed warped?"""
        record, frame = self.draw(rng)
        speed = rng.uniform(0.5, 1.5)
        count = round(speed * WINDOW.size)
        taken = self.window(record, frame, count)
        where = np.linspace(0, count - 1, WINDOW.size)
        left = where.astype(int)
        right = np.minimum(left + 1, count - 1)
        share = (where - left)[:, None, None, None].astype(np.float32)
        return taken[left] * (1 - share) + taken[right] * share, float(speed > 1)


def rate(batches: Iterator, seconds: float) -> float:
    """Windows per second of a stream of batches."""
    next(batches)
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or not done:
        windows, labels = next(batches)
        assert windows.shape == (BATCH, WINDOW.size, FEATURES.size)
        assert len(labels) == BATCH
        done += 1
    return done * BATCH / spent


def from_bank(name: str, bank: Bank, *, augmented: bool) -> Iterator:
    """Batches as training makes them."""
    changes = augment.parse(AUGMENTATIONS if augmented else "")
    sampler = Sampler(
        "train",
        {name: TASKS[name]()},
        {name: bank},
        WINDOW,
        seed=0,
        batch_size=BATCH,
        sample=1.0,
        fps_scaling=1.0,
        augmentations=changes,
        device=torch.device("cpu"),
    )
    for step in itertools.count():
        windows, labels = sampler.batch(0, step, slice(0, BATCH))[name]
        yield windows.flatten(2), labels


def main() -> None:
    """Run the comparison and print it as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="per way, task and round")
    parser.add_argument("--draws", choices=("torch", "numpy"), default="torch")
    parser.add_argument("--augment", action="store_true", help="change the windows")
    parser.add_argument("--default_allocator", action="store_true", help="as C has it")
    arguments = parser.parse_args()
    seconds, draws, augmented = arguments.seconds, arguments.draws, arguments.augment
    torch.set_num_threads(1)
    if not arguments.default_allocator:
        keep_freed_memory()
    rng = np.random.default_rng(0)
    tracks = [rng.random((FRAMES, *FEATURES.shape), dtype=np.float32) for _ in range(RECORDINGS)]
    bank = Bank.from_records([Record.in_memory(str(n), x, FEATURES) for n, x in enumerate(tracks)])
    labelled = [
        xr.DataArray(
            x,
            dims=("time", "individuals", "keypoints", "space"),
            coords={"time": np.arange(FRAMES), **{k: list(v) for k, v in FEATURES}},
        )
        for x in tracks
    ]
    print(f"{RECORDINGS} recordings of {FRAMES} frames, batch {BATCH}, W {WINDOW.size}, "
          f"{FEATURES.size} features, one core, {ROUNDS} rounds of {seconds:g} s, "
          f"others draw with {draws}{f', augmented by {AUGMENTATIONS}' * augmented}\n")  # fmt: skip
    print("| task | bank, windows/s | slicing, windows/s | xarray, windows/s | bank / slicing |")
    print("|---|---|---|---|---|")
    for name in ("cons", "order", "shift", "warp"):
        ways = {
            "bank": from_bank(name, bank, augmented=augmented),
            "slicing": iter(
                DataLoader(
                    OneByOne(name, tracks, slice_one, draws, augmented=augmented), batch_size=BATCH
                )
            ),
            "xarray": iter(
                DataLoader(
                    OneByOne(name, labelled, reindex_one, draws, augmented=augmented),
                    batch_size=BATCH,
                )
            ),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, batches in ways.items():
                rates[way].append(rate(batches, seconds))
        ratios = [a / b for a, b in zip(rates["bank"], rates["slicing"], strict=True)]
        middle = {way: statistics.median(values) for way, values in rates.items()}
        print(
            f"| {name} | {middle['bank']:,.0f} | {middle['slicing']:,.0f} | "
            f"{middle['xarray']:,.0f} | {statistics.median(ratios):.1f} "
            f"({min(ratios):.1f} to {max(ratios):.1f}) |"
        )


if __name__ == "__main__":
    main()
