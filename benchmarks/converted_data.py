"""Stores and samplers that the sections of the benchmark of converted datasets share."""

import os
from pathlib import Path

import numpy as np
import torch
import zarr

from lisbet.core.config import Features, Window
from lisbet.data.bank import Bank
from lisbet.data.hub._simulate import INDIVIDUALS, KEYPOINTS
from lisbet.data.streaming_bank import StreamingBank
from lisbet.data.zarr.store import COLUMNS, MARK, POSITION, VERSION, new_arrays, write_table
from lisbet.tasks import TASKS
from lisbet.training.datasets.sampler import Sampler

FEATURES = Features(individuals=INDIVIDUALS, keypoints=KEYPOINTS, space=("x", "y"))


WINDOW, BATCH = Window(size=200), 128
MB = 2**20


def walks(frames: int, seed: int) -> np.ndarray:
    """Random walks of two mice in [0, 1], quickly: (frames, individuals, keypoints, space)."""
    rng = np.random.default_rng(seed)
    path = rng.normal(0, 0.004, (frames, 2, 1, 2)).astype(np.float32).cumsum(axis=0)
    body = rng.normal(0, 0.01, (1, 2, 7, 2)).astype(np.float32)
    noise = rng.normal(0, 0.001, (frames, 2, 7, 2)).astype(np.float32)
    return np.abs((path + body + noise + 1) % 2 - 1)


def write_store(path: Path, lengths: np.ndarray, *, seed: int = 0, **sizes: int) -> None:
    """Write a store of random walks as convert_dataset would, without recordings to read."""
    group = zarr.create_group(str(path), zarr_format=3)
    new_arrays(group, FEATURES, (), "float32", **sizes)
    array = group[POSITION]
    total, shard = int(lengths.sum()), array.shards[0]
    array.resize((total, *FEATURES.shape))
    block = walks(min(shard, total), seed)
    for first in range(0, total, shard):
        last = min(first + shard, total)
        array[first:last] = np.roll(block, 977 * (first // shard), axis=0)[: last - first]
    starts = np.cumsum(lengths) - lengths
    empty = {"fps": 30.0, "missing": 0.0, "digest": "0" * 64, "source": "", "source_sha256": "",
             "steps": "[]"}  # fmt: skip
    write_table(group, [
        dict(zip(COLUMNS[:3], (f"r{n:06}", int(start), int(frames)), strict=True)) | empty
        for n, (start, frames) in enumerate(zip(starts, lengths, strict=True))
    ])  # fmt: skip
    group.attrs.update({"format": MARK, "version": VERSION, "preparation": {}, "left_out": {},
                        "greatest_error": 0.0, "digest": ""})  # fmt: skip


def evict(path: Path) -> None:
    """Drop a folder's files from the page cache."""
    for file in path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def peak_mb() -> float:
    """Peak resident memory of this process, in MiB (ru_maxrss would be its parent's, if larger)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def sampler(bank: Bank, steps: float = 1.0, tasks: tuple[str, ...] = ("warp", "shift")) -> Sampler:
    kinds = {name: TASKS[name]() for name in tasks}
    return Sampler("train", kinds, dict.fromkeys(kinds, bank), WINDOW, 1, BATCH, steps, 1.0, (),
                   torch.device("cpu"))  # fmt: skip


def moving(records: list, memory: int, seed: int = 1, batch: int = BATCH) -> StreamingBank:
    outline = Bank.outline(records)
    return StreamingBank.over(
        outline, records, memory=memory, seed=seed, part="train", batch_size=batch,
        steps=-(-outline.frames // batch), device=torch.device("cpu"),
    )  # fmt: skip
