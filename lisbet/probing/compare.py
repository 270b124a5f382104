"""Compare an embedding with features made by hand, over recordings that no probe was fitted to."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from lisbet.probing.scores import folds, regression, scaling, score

COLUMNS = ("features", "behavior", "seed", "fold", "average_precision", "f1", "frames", "present")
MEAN = "mean"
BLOCKS = 4
"""Each recording is cut into so many stretches; which recording a frame is from is learned on the
others of them."""


@dataclass(frozen=True)
class Examples:
    """Features and annotations of some frames of each recording.

    Parameters
    ----------
    features : dict
        By name of the features and id of the recording: (frames, features), float32.
    labels : dict
        By id of the recording: (frames, behaviours), bool.
    behaviors : tuple of str
        Names of the behaviours.
    """

    features: Mapping[str, Mapping[str, np.ndarray]]
    labels: Mapping[str, np.ndarray]
    behaviors: tuple[str, ...]

    def of(self, name: str, ids: Iterable[str]) -> np.ndarray:
        """Return the features of some recordings, one behind the other."""
        return np.concatenate([self.features[name][record_id] for record_id in ids])

    def labels_of(self, ids: Iterable[str]) -> np.ndarray:
        """Return the annotations of some recordings, one behind the other."""
        return np.concatenate([self.labels[record_id] for record_id in ids])


def splits(
    ids: list[str], count: int, seeds: Iterable[int]
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield seed, number and recordings of each fold."""
    for seed in seeds:
        for number, held_out in enumerate(folds(ids, count, seed)):
            yield seed, number, held_out


def compare(examples: Examples, held_out_of: Iterable[tuple[int, int, list[str]]]) -> pd.DataFrame:
    """Score all features, each fold by probes that were fitted to the other recordings.

    Parameters
    ----------
    examples : Examples
        The frames.
    held_out_of : iterable
        See `splits`.

    Returns
    -------
    DataFrame
        A row for each of the features, behaviour and fold, with `COLUMNS`. Behaviours that are
        nearly never or always there have no row for a fold.
    """
    rows = []
    for seed, number, held_out in held_out_of:
        rest = [record_id for record_id in examples.labels if record_id not in held_out]
        fit_labels, test_labels = examples.labels_of(rest), examples.labels_of(held_out)
        recordings = np.repeat(range(len(rest)), [len(examples.labels[one]) for one in rest])
        for name in examples.features:
            fit, test = examples.of(name, rest), examples.of(name, held_out)
            found = score(fit, fit_labels, recordings, test, test_labels)
            for behavior, truth, scored in zip(
                examples.behaviors, test_labels.T, found, strict=True
            ):
                if scored is not None:
                    rows.append((name, behavior, seed, number, scored.average_precision, scored.f1,
                                 len(truth), float(truth.mean())))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


Table = dict[str, dict[str, float]]
"""By name of the features and behaviour; `MEAN` is over the behaviours."""


def means(scores: pd.DataFrame, score_name: str = "average_precision") -> Table:
    """Return the mean over folds and seeds of all features, in their order."""
    return _over_folds(scores, score_name, np.mean)


def spread(scores: pd.DataFrame, score_name: str = "average_precision") -> Table:
    """Return the standard deviation over folds and seeds, as `means` does."""
    return _over_folds(scores, score_name, np.std)


def _over_folds(scores: pd.DataFrame, name: str, of: Callable[..., np.floating]) -> Table:
    found: Table = {}
    for features, own in scores.groupby("features", sort=False):
        by_fold = own.pivot_table(name, ["seed", "fold"], "behavior", sort=False)
        by_fold[MEAN] = by_fold.mean(axis=1)
        found[str(features)] = {
            str(column): float(of(values.dropna().to_numpy())) for column, values in by_fold.items()
        }
    return found


def present(scores: pd.DataFrame) -> dict[str, float]:
    """Return the share of the frames that show each behaviour: what chance would score."""
    by_fold = scores.groupby("behavior", sort=False)["present"].mean()
    found = {str(behavior): float(share) for behavior, share in by_fold.items()}
    return found | {MEAN: float(np.mean(list(found.values())))}


def recording_accuracy(features: Mapping[str, np.ndarray]) -> float:
    """Return how often a linear classifier tells which recording a frame is from.

    It is scored on stretches of each recording that it was not fitted to.

    Parameters
    ----------
    features : dict
        By id of the recording: (frames, features).
    """
    parts = list(features.values())
    number = np.concatenate([np.full(len(part), n) for n, part in enumerate(parts)])
    block = np.concatenate([np.arange(len(part)) * BLOCKS // len(part) for part in parts])
    places = [(np.flatnonzero(block != b), np.flatnonzero(block == b)) for b in range(BLOCKS)]
    values = np.concatenate(parts)
    fresh = make_pipeline(scaling(), regression())
    return float(cross_val_score(fresh, values, number, cv=places[1:3]).mean())
