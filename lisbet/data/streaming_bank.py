"""The bank that moves: of a dataset larger than memory, some blocks of recordings at a time.

The recordings are cut into blocks of about equal size, which come in an order that is drawn again
for each pass over the data. Some consecutive blocks are in memory; from time to time the
oldest makes room for the next, which a thread has read meanwhile. Which blocks are there is a pure
function of (seed, epoch, step): the same on any number of processes and after a resume.
"""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from lisbet.core.errors import DataError
from lisbet.data.bank import Bank
from lisbet.data.reading import fill
from lisbet.data.record import Record
from lisbet.data.rng import uniforms

log = logging.getLogger(__name__)

RESIDENT = (4, 16)
"""Least and most blocks that windows are drawn from: the more, the better they are shuffled."""
AHEAD = 2
"""Blocks that are read ahead."""
MOST_READ = 20
"""At most so many frames are read for one that is drawn."""


@dataclass(frozen=True)
class Order:
    """Which blocks are there at which step.

    Parameters
    ----------
    seed : int
        Seed of the run.
    part : str
        "train" or "dev": held-out recordings pass once in each evaluation, always alike.
    blocks : int
        Number of blocks.
    resident : int
        Number of blocks that are there at a time.
    pace : float
        Steps between two moves.
    """

    seed: int
    part: str
    blocks: int
    resident: int
    pace: float

    def position(self, epoch: int, step: int, steps: int) -> int:
        """Return the place of the first resident block in the sequence of all passes."""
        if self.resident == self.blocks:
            return 0  # all are there, always
        done = step if self.part == "dev" else epoch * steps + step
        return int(done / self.pace)

    def block(self, place: int) -> int:
        """Return the block at a place of the sequence."""
        number, within = divmod(place, self.blocks)
        return int(self._pass(0 if self.part == "dev" else number)[within])

    def at(self, position: int) -> list[int]:
        """Return the blocks that are there, each once: a new pass may begin with a recent one."""
        return list(dict.fromkeys(self.block(position + n) for n in range(self.resident)))

    def _pass(self, number: int) -> np.ndarray:
        stream = f"{self.part}/blocks"
        table = uniforms(self.seed, stream, epoch=number, step=0, rows=self.blocks, columns=1)
        return np.argsort(table[:, 0], kind="stable")


@dataclass(frozen=True, eq=False)
class StreamingBank(Bank):
    """A bank whose `tracks` are elsewhere; `at` brings those of a step.

    Ids, lengths and annotations are of all recordings, and in memory.
    """

    tracks_at: "Tracks | None" = None

    @classmethod
    def over(
        cls,
        outline: Bank,
        records: list[Record],
        *,
        memory: int,
        seed: int,
        part: str,
        batch_size: int,
        steps: int,
        device: torch.device,
        parts: int = 1,
        reserved: int = 0,
    ) -> "StreamingBank":
        """Cut recordings into blocks.

        Parameters
        ----------
        outline : Bank
            The recordings, without their tracks.
        records : list of Record
            The same, to be read.
        memory : int
            Bytes that the blocks may take, those that are read ahead included.
        seed, part
            What the order of the blocks follows from.
        batch_size, steps : int
            Windows drawn in a step, and steps of an epoch: blocks move so that a pass takes an
            epoch, or several where an epoch draws few frames.
        device : torch.device
            Where the blocks lie.
        parts, reserved : int
            In how many parts ``--bank_memory`` is divided, once so many bytes are taken off: to
            name the least that is enough.

        Raises
        ------
        DataError
            If a recording does not fit into a block.
        """
        resident, rows = _slots(outline, memory, parts, reserved)
        blocks = list(_blocks(outline, rows))
        resident = min(resident, len(blocks))
        slowest = outline.frames / len(blocks) / (MOST_READ * batch_size)
        order = Order(seed, part, len(blocks), resident, max(steps / len(blocks), slowest))
        tracks = Tracks(outline, records, blocks, order, rows, device)
        own = {name: getattr(outline, name) for name in Bank.__dataclass_fields__}
        return cls(**own, tracks_at=tracks)

    @property
    def moves(self) -> bool:
        """Whether `at` returns other recordings at other steps: yes."""
        return True

    def at(self, epoch: int, step: int, steps: int) -> Bank:
        """Return the recordings that are there at a step, as a bank of their own."""
        assert self.tracks_at is not None
        return self.tracks_at.at(epoch, step, steps)

    def __str__(self) -> str:
        assert self.tracks_at is not None
        order = self.tracks_at.order
        return (
            f"{order.resident} of {order.blocks} blocks in memory, "
            f"a new one every {order.pace:.1f} steps"
        )


class Tracks:
    """The blocks in memory, and those that are being read."""

    def __init__(
        self,
        outline: Bank,
        records: list[Record],
        blocks: list[np.ndarray],
        order: Order,
        rows: int,
        device: torch.device,
    ) -> None:
        self.outline, self.records, self.blocks, self.order = outline, records, blocks, order
        self.rows, self.free = rows, list(range(order.resident))
        shape = (len(self.free) * rows + 1, *outline.features.shape)
        self.ring = torch.zeros(shape, dtype=torch.float32, device=device)
        self.labels = None
        if outline.labels is not None:
            self.labels = np.zeros((shape[0], len(outline.behaviors)), dtype=bool)
        self.starts: dict[int, np.ndarray] = {}
        """Of each block that is here: the rows of its recordings."""
        self.reading: dict[int, Future] = {}
        self.readers = ThreadPoolExecutor(AHEAD, thread_name_prefix="blocks")
        self.position, self.view = -1, outline
        self.waited_s = 0.0

    def at(self, epoch: int, step: int, steps: int) -> Bank:
        """Return the recordings that are there at a step."""
        position = self.order.position(epoch, step, steps)
        if position != self.position:
            self._move(position)
        return self.view

    def close(self) -> None:
        """Stop reading."""
        self.readers.shutdown(cancel_futures=True)

    def _move(self, position: int) -> None:
        wanted = self.order.at(position)
        ahead = [self.order.block(position + self.order.resident + n) for n in range(AHEAD)]
        for block in self.starts.keys() - set(wanted):
            self.free.append(int(self.starts.pop(block)[0]) // self.rows)
        for block in self.reading.keys() - {*wanted, *ahead}:
            self.reading.pop(block).cancel()
        missing = [block for block in wanted if block not in self.starts]
        for number, block in enumerate(missing):
            for near in missing[number : number + AHEAD]:
                self._read_ahead(near)
            self._take(block)
        for block in ahead:
            self._read_ahead(block)
        self.view, self.position = self._viewed(wanted), position

    def _read_ahead(self, block: int) -> None:
        if block not in self.reading and block not in self.starts:
            self.reading[block] = self.readers.submit(self._read, block)

    def _read(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a block: its tracks, and the row of each recording."""
        numbers = self.blocks[block]
        starts = np.cumsum(np.concatenate([[1], self.outline.lengths[numbers][:-1] + 1]))
        tracks = np.zeros((self.rows, *self.outline.features.shape), np.float32)
        fill([self.records[number] for number in numbers], tracks, starts)
        return tracks, starts

    def _take(self, block: int) -> None:
        """Wait for a block, and copy it to where the oldest was."""
        started = time.perf_counter()
        tracks, starts = self.reading.pop(block).result()
        self.waited_s += time.perf_counter() - started
        first = self.free.pop() * self.rows
        # Here, not in the thread: a GPU may still read what was there before.
        self.ring[first : first + self.rows].copy_(torch.from_numpy(tracks))
        self.starts[block] = first + starts
        if self.labels is not None:
            assert self.outline.labels is not None
            for number, start in zip(self.blocks[block], self.starts[block], strict=True):
                active = self.outline.labels[self.outline.recording(number)]
                self.labels[start : start + len(active)] = active

    def _viewed(self, blocks: list[int]) -> Bank:
        numbers = np.concatenate([self.blocks[block] for block in blocks])
        return Bank(
            self.ring,
            tuple(self.outline.ids[number] for number in numbers),
            np.concatenate([self.starts[block] for block in blocks]),
            self.outline.lengths[numbers],
            self.outline.features,
            self.labels,
            self.outline.behaviors,
        )


def _slots(outline: Bank, memory: int, parts: int, reserved: int) -> tuple[int, int]:
    """Return how many blocks may be there, and rows of each: the longest recording must fit in."""
    total = memory // (outline.features.size * 4)
    longest = int(outline.lengths.max()) + 1
    fewest, most = RESIDENT
    resident = min(most, total // longest - AHEAD)
    if resident < fewest:
        need = longest * (fewest + AHEAD) * outline.features.size * 4
        raise DataError(
            f"{outline.ids[int(outline.lengths.argmax())]} has {longest - 1} frames, of which "
            f"{fewest + AHEAD} times as many do not fit into {memory / 2**20:.0f} MB; pass "
            f"--bank_memory={(need * parts + reserved) // 2**20 + 1}MB or more"
        )
    return resident, total // (resident + AHEAD)


def _blocks(outline: Bank, rows: int) -> Iterator[np.ndarray]:
    """Cut recordings into blocks of consecutive ones, of about equal size."""
    needed = outline.lengths + 1
    even = needed.sum() / -(-needed.sum() // rows)
    block: list[int] = []
    size = 0
    for number, more in enumerate(needed.tolist()):
        if block and (size >= even or size + more > rows):
            yield np.array(block)
            block, size = [], 0
        block.append(number)
        size += more
    yield np.array(block)
