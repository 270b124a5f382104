"""A sequence of two mice as MARS writes it, and CalMS21 with annotations (Sun et al., 2021)."""

import numpy as np

from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict

INDIVIDUALS = ("resident", "intruder")
KEYPOINTS = ("nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail")
FPS = 30.0
IMAGE_PX = (1024.0, 570.0)
SOURCE = "CalMS21"


def tracks_of(value: JsonDict, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints (frames, 2 mice, 2 axes, 7) and scores (frames, 2, 7) of a sequence.

    Parameters
    ----------
    value : dict
        The sequence.
    place : str
        Where it is, for messages.

    Raises
    ------
    DataError
        If they are lacking, or have another shape.
    """
    for key in ("keypoints", "scores"):
        if key not in value:
            raise DataError(f"{place}: no key {key!r} (found: {', '.join(value)})")
    position = _array(value["keypoints"], (2, 2, 7), f"{place}: keypoints")
    scores = _array(value["scores"], (2, 7), f"{place}: scores")
    if len(scores) != len(position):
        raise DataError(f"{place}: {len(position)} frames of keypoints, {len(scores)} of scores")
    return position, scores


def behaviors_of(value: JsonDict, frames: int, place: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the behaviours of each frame, and their names in the order of the vocabulary.

    Raises
    ------
    DataError
        If the annotations cannot be used.
    """
    vocabulary = value.get("metadata", {}).get("vocab")
    if not isinstance(vocabulary, dict):
        raise DataError(f"{place}: no key metadata.vocab, which names the behaviours")
    behaviors = tuple(sorted(vocabulary, key=lambda name: vocabulary[name]))
    if [vocabulary[name] for name in behaviors] != list(range(len(behaviors))):
        raise DataError(f"{place}: metadata.vocab does not number the behaviours from 0")
    numbers = _array(value["annotations"], (), f"{place}: annotations").astype(int)
    if len(numbers) != frames:
        raise DataError(f"{place}: {frames} frames of keypoints, {len(numbers)} of annotations")
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(behaviors):
        raise DataError(f"{place}: annotations hold numbers that metadata.vocab does not name")
    return np.eye(len(behaviors), dtype=bool)[numbers], behaviors


def _array(raw: object, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return numbers as an array (frames, *shape)."""
    try:
        array = np.array(raw, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are no table of numbers: {error}") from error
    if array.shape[1:] != shape or not array.ndim:
        expected = ", ".join(["frames", *map(str, shape)])
        raise DataError(f"{what} have shape {array.shape} instead of ({expected})")
    return array
