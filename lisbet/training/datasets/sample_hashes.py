"""sample_hashes.csv: what was drawn in each step, to compare runs on other processes."""

import csv
import hashlib
from pathlib import Path

import torch
from accelerate.utils import gather_object

from lisbet.core.storage.files import write_file
from lisbet.training.datasets.sampler import Batch

HASHES = "sample_hashes.csv"


class SampleHashes:
    """Hashes of windows and labels, the same on any number of processes and passes."""

    def __init__(self) -> None:
        self.steps: dict[tuple[int, int], list[tuple[int, str, str]]] = {}
        self.rows: list[tuple[int, int, str]] = []

    def add(self, epoch: int, step: int, rows: slice, batch: Batch) -> None:
        """Take in this process's rows of a step's global batch."""
        own = self.steps.setdefault((epoch, step), [])
        for task, (windows, labels) in batch.items():
            for row, window, label in zip(
                range(rows.start, rows.stop), windows.cpu(), labels.cpu(), strict=True
            ):
                own.append((row, task, hashlib.sha256(_bytes(window) + _bytes(label)).hexdigest()))

    def collected(self) -> list[tuple[int, int, str]]:
        """Bring the rows of all processes together; return epoch, step and hash of each step."""
        parts = gather_object([self.steps])
        self.steps = {}
        for epoch, step in sorted({key for part in parts for key in part}):
            samples = sorted(sample for part in parts for sample in part.get((epoch, step), ()))
            digest = hashlib.sha256(repr(samples).encode()).hexdigest()
            self.rows.append((epoch, step, digest))
        return self.rows

    @staticmethod
    def write(path: Path, rows: list[tuple[int, int, str]]) -> None:
        """Write the table."""
        with (
            write_file(path, overwrite=True) as temporary,
            temporary.open("w", newline="") as stream,
        ):
            csv.writer(stream).writerows([("epoch", "step", "sha256"), *rows])


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
