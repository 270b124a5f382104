"""``--tensorboard``: event files in the run's folder."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

from lisbet.core.json_types import JsonDict
from lisbet.core.storage.write_log import WriteLog
from lisbet.options import TrainOptions
from lisbet.training.loggers import Start

FOLDER = "tensorboard"


class TensorBoardLogger:
    """Writes event files for TensorBoard.

    Parameters
    ----------
    options : TrainOptions
        Not used.
    start : Start
        The run.
    """

    def __init__(self, options: TrainOptions, start: Start) -> None:
        del options
        purge_step = start.step + 1 if start.resumed else None
        place = start.folder / FOLDER
        before = set(place.iterdir()) if place.is_dir() else set()
        self._writer = SummaryWriter(str(place), purge_step=purge_step)
        notes = WriteLog(start.folder)
        notes.add_many([{"folder": FOLDER}])
        for path in set(place.iterdir()) - before:
            notes.add(path)

    def log(self, row: JsonDict, pictures: dict[str, Path]) -> None:
        """Write the numbers and pictures of a step."""
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name, value, row["step"])
        for name, path in pictures.items():
            pixels = np.asarray(imread(path))[..., :3]
            self._writer.add_image(name, pixels, row["step"], dataformats="HWC")
        self._writer.flush()

    def finish(self, code: int) -> None:
        """Close the files."""
        del code
        self._writer.close()


LOGGER = TensorBoardLogger
