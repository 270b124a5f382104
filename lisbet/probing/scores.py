"""Fit a linear probe to some recordings, and score it on others.

How strongly a probe is regularized is chosen by cross-validation among the recordings that it is
fitted to: features that vary between recordings need more of it than others, and one value for all
would favour those that happen to suit it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

MOST_ITERATIONS = 300
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of `C` of `LogisticRegression` to choose from; smaller is more regularization."""
SOLVER = "newton-cholesky"
"""The fastest for many more frames than features."""
INNER_FOLDS = 3
MOST_COMPARED = 10_000
"""Frames, spread evenly over those of the fit, on which the values are compared."""
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


def scaling() -> Pipeline:
    """Return what standardises features; missing values are replaced by the mean."""
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())


def regression(solver: str = "lbfgs", c: float = 1.0) -> LogisticRegression:
    """Return a logistic regression with balanced classes."""
    return LogisticRegression(C=c, class_weight="balanced", max_iter=MOST_ITERATIONS, solver=solver)


def fitted_probe(values: np.ndarray, labels: np.ndarray, recordings: np.ndarray) -> Pipeline:
    """Fit a probe for one behaviour, with the regularization that suits the features.

    Each value of `STRENGTHS` is scored by average precision on recordings that are left out of the
    fit, at most `INNER_FOLDS` groups of them in turn. Where that cannot be done, as there is one
    recording or the behaviour is too rare in them, `C` is 1.

    Parameters
    ----------
    values : ndarray
        (frames, features).
    labels : ndarray
        (frames,), bool.
    recordings : ndarray
        (frames,): the number of the recording that each frame is from.
    """
    c = 1.0
    if inner := _inner_folds(labels, recordings):
        found = [_scores_by_strength(values, labels, *sides) for sides in inner]
        c = STRENGTHS[int(np.argmax(np.mean(found, axis=0)))]
    return make_pipeline(scaling(), regression(SOLVER, c)).fit(values, labels)


def _scores_by_strength(
    values: np.ndarray, labels: np.ndarray, fit: np.ndarray, test: np.ndarray
) -> list[float]:
    """Return the average precision on frames `test` of fits to frames `fit`, by `STRENGTHS`."""
    scaled = scaling().fit(values[fit])
    known, new = scaled.transform(values[fit]), scaled.transform(values[test])
    fits = (regression(SOLVER, c).fit(known, labels[fit]) for c in STRENGTHS)
    return [average_precision_score(labels[test], own.decision_function(new)) for own in fits]


def _inner_folds(labels: np.ndarray, recordings: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the frames to fit to and to score on, of each fold that has enough of both classes."""
    numbers = np.unique(recordings)
    if len(numbers) < 2:
        return []
    used = np.arange(0, len(labels), -(-len(labels) // MOST_COMPARED))
    found = []
    for group in np.array_split(numbers, min(INNER_FOLDS, len(numbers))):
        out = np.isin(recordings[used], group)
        sides = used[~out], used[out]
        if all(_can_be_scored(labels[side]) for side in sides):
            found.append(sides)
    return found


def _can_be_scored(labels: np.ndarray) -> bool:
    """Whether a behaviour is neither nearly always nor nearly never there."""
    return min(labels.sum(), (~labels).sum()) >= LEAST_FRAMES


def score(
    fit: np.ndarray,
    fit_labels: np.ndarray,
    recordings: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
) -> list[Scored | None]:
    """Fit a probe for each behaviour and score it.

    Parameters
    ----------
    fit, test : ndarray
        (frames, features).
    fit_labels, test_labels : ndarray
        (frames, behaviours), bool.
    recordings : ndarray
        (frames,): the number of the recording that each frame of `fit` is from.

    Returns
    -------
    list
        For each behaviour; None if it is nearly always or never there on one of the sides.
    """
    found: list[Scored | None] = []
    for own, held_out in zip(fit_labels.T, test_labels.T, strict=True):
        if not (_can_be_scored(own) and _can_be_scored(held_out)):
            found.append(None)
            continue
        # Checks of each call would take as long as fits to few frames.
        with warnings.catch_warnings(), config_context(skip_parameter_validation=True):
            warnings.simplefilter("ignore", ConvergenceWarning)  # close enough, for a score
            fitted = fitted_probe(fit, own, recordings)
        confidence = fitted.predict_proba(test)[:, 1]
        found.append(
            Scored(
                float(average_precision_score(held_out, confidence)),
                float(f1_score(held_out, confidence > 0.5)),
            )
        )
    return found
