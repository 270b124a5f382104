"""The names of the files that applying a model leaves, and which of them are in a folder."""

from collections.abc import Collection
from pathlib import Path

SUFFIXES = {"csv": ".csv", "parquet": ".parquet", "npz": ".npz", "zarr": ".zarr.zip"}
"""Endings of tables, by format."""
EMBEDDING = "features_lisbet_embedding"
ANNOTATION = "machineAnnotation_lisbet"
PROBABILITY = f"{ANNOTATION}_probabilities"
BOUTS, BORIS_EVENTS = "bouts.csv", "boris_events.csv"


def named(*stems: str) -> tuple[str, ...]:
    """Return the names of tables in all formats."""
    return tuple(stem + suffix for suffix in SUFFIXES.values() for stem in stems)


EMBEDDING_FILES = named(EMBEDDING)
ANNOTATION_FILES = (*named(ANNOTATION, PROBABILITY), BOUTS, BORIS_EVENTS)


def find_results(folder: Path, names: Collection[str]) -> dict[str, list[Path]]:
    """Return the files of these names in a folder, by record id, in the order of the names."""
    found: dict[str, list[Path]] = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.name in names:
            found.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path)
    order = list(names)
    return {
        record_id: sorted(found[record_id], key=lambda path: order.index(path.name))
        for record_id in sorted(found)
    }


def motif_table(states: object) -> str:
    """Return the name of the tables of motifs of a number of states, or of prototypes.

    Examples
    --------
    >>> motif_table(4), motif_table("best_6_32")
    ('machineAnnotation_hmm4.csv', 'machineAnnotation_hmmbest_6_32.csv')
    """
    return f"machineAnnotation_hmm{states}.csv"
