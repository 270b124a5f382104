"""A logger: the training loss of each logged step in losses.csv."""

from pathlib import Path
from typing import Any

from lisbet.options import TrainOptions
from lisbet.training.loggers import Start


class LossCSV:
    """Appends to losses.csv in the folder of the run."""

    def __init__(self, options: TrainOptions, start: Start) -> None:
        self.path = start.folder / "losses.csv"
        rows = self.path.read_text().splitlines()[1:] if self.path.exists() else []
        done = [row for row in rows if int(row.split(",")[0]) <= start.step]
        self.path.write_text("\n".join(["step,train_loss", *done, ""]))

    def log(self, row: dict[str, Any], pictures: dict[str, Path]) -> None:
        """Log the row of a step."""
        if "train_loss" in row:
            with self.path.open("a") as stream:
                stream.write(f"{row['step']},{row['train_loss']}\n")

    def finish(self, code: int) -> None:
        """Nothing is left to do."""
