"""Fit a linear probe to some recordings, and score it on others."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

MOST_ITERATIONS = 300
LEAST_FRAMES = 10
"""A behaviour with fewer frames on either side of a fold is not scored there."""


@dataclass(frozen=True)
class Scored:
    """The scores of a behaviour on the recordings of one fold.

    Parameters
    ----------
    average_precision : float
        Of the held-out frames by the probability of the probe.
    f1 : float
        At a probability of ½.
    """

    average_precision: float
    f1: float


def folds(recordings: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Deal recordings out to folds at random; as many folds as recordings leave one out.

    Examples
    --------
    >>> [len(fold) for fold in folds(["a", "b", "c", "d", "e"], 2, seed=0)]
    [3, 2]
    """
    order = np.random.default_rng(seed).permutation(len(recordings))
    return [sorted(recordings[n] for n in order[k::count]) for k in range(count)]


def probe() -> Pipeline:
    """Return a logistic regression with balanced classes, on standardised features.

    Missing values are replaced by the mean.
    """
    return make_pipeline(
        SimpleImputer(keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=MOST_ITERATIONS),
    )


def score(
    fit: np.ndarray, fit_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> list[Scored | None]:
    """Fit a probe for each behaviour and score it.

    Parameters
    ----------
    fit, test : ndarray
        (frames, features).
    fit_labels, test_labels : ndarray
        (frames, behaviours), bool.

    Returns
    -------
    list
        For each behaviour; None if it is nearly always or never there on one of the sides.
    """
    found: list[Scored | None] = []
    for own, held_out in zip(fit_labels.T, test_labels.T, strict=True):
        if any(min(n.sum(), (~n).sum()) < LEAST_FRAMES for n in (own, held_out)):
            found.append(None)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # close enough, for a score
            fitted = probe().fit(fit, own)
        confidence = fitted.predict_proba(test)[:, 1]
        found.append(
            Scored(
                float(average_precision_score(held_out, confidence)),
                float(f1_score(held_out, confidence > 0.5)),
            )
        )
    return found
