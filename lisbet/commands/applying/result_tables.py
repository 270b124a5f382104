"""The tables that applying a model leaves, by name, and how to read them again."""

from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.commands.applying.sidecar import model_of_tables
from lisbet.core.errors import DataError

EMBEDDINGS = "features_lisbet_embedding.csv"
ANNOTATIONS = "machineAnnotation_lisbet.csv"


def motif_table(states: object) -> str:
    """Return the name of the tables of motifs of a number of states, or of prototypes.

    Examples
    --------
    >>> motif_table(4), motif_table("best_6_32")
    ('machineAnnotation_hmm4.csv', 'machineAnnotation_hmmbest_6_32.csv')
    """
    return f"machineAnnotation_hmm{states}.csv"


def read_embeddings(folder: Path) -> dict[str, np.ndarray]:
    """Read what compute_embeddings wrote.

    Returns
    -------
    dict of ndarray
        By record id: (frames, embedding).

    Raises
    ------
    DataError
        If there is none, or they are of several models.
    """
    files = sorted(folder.rglob(EMBEDDINGS)) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no {EMBEDDINGS}; see betman compute_embeddings")
    model_of_tables(files)
    read = {}
    for file in files:
        try:
            values = pd.read_csv(file, index_col=0).to_numpy(dtype=float)
        except (ValueError, pd.errors.ParserError) as error:
            raise DataError(f"{file} is no table of numbers: {error}") from error
        read[file.parent.relative_to(folder).as_posix()] = values
        if values.shape[1] != (width := next(iter(read.values())).shape[1]):
            raise DataError(
                f"{file} has {values.shape[1]} columns, {files[0]} has {width}: they are of "
                "different models"
            )
    return read
