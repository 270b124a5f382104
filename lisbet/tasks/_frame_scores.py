"""Scores of behaviours that were predicted frame by frame, and of two baselines without a model."""

import numpy as np
from sklearn.metrics import average_precision_score

from lisbet.core.json_types import JsonDict

MEANS = {
    "f1": "macro_f1",
    "precision": "macro_precision",
    "recall": "macro_recall",
    "average_precision": "mean_average_precision",
}
"""Scores of a class, and the names of their means over the classes."""


def scores_of(
    truth: np.ndarray,
    decided: np.ndarray,
    confidence: np.ndarray,
    classes: list[str],
    *,
    exclusive: bool,
) -> JsonDict:
    """Return the scores of each class, their means, and those of the baselines."""
    each, undefined = {}, {}
    for number, name in enumerate(classes):
        each[name], undefined[name] = class_scores(
            truth[:, number], decided[:, number], confidence[:, number], name
        )
    means: dict[str, float | None] = {}
    reasons: JsonDict = {}
    for score, title in MEANS.items():
        values = [scores[score] for scores in each.values() if scores[score] is not None]
        means[title] = float(np.mean(values)) if len(values) == len(classes) else None
        if means[title] is None:
            why = dict.fromkeys(own[score] for own in undefined.values() if score in own)
            reasons[title] = "; ".join(why)
            if values:
                reasons[title] += (
                    f" (the mean over those of the {len(classes)} classes where it is defined is "
                    f"{np.mean(values):.3f})"
                )
    if of_classes := {name: own for name, own in undefined.items() if own}:
        reasons["classes"] = of_classes
    rates = truth.mean(axis=0)
    return {
        **means,
        "baselines": baselines(rates, exclusive=exclusive),
        "classes": each,
        "undefined": reasons,
    }


def class_scores(
    truth: np.ndarray, decided: np.ndarray, confidence: np.ndarray, name: str
) -> tuple[JsonDict, dict[str, str]]:
    """Score one class.

    With TP, FP and FN the right yes, wrong yes and wrong no answers: precision TP / (TP + FP),
    recall TP / (TP + FN), F1 2 TP / (2 TP + FP + FN), and the average precision of
    ``sklearn.metrics.average_precision_score``. None where they are undefined: precision if the
    class is never predicted; recall, F1 and average precision if it is never true; precision, F1
    and average precision if it is always true, as then no prediction can be a false yes.

    Parameters
    ----------
    truth, decided : ndarray
        (frames,), bool.
    confidence : ndarray
        (frames,): the larger, the surer.
    name : str
        Of the class, for the reasons.

    Returns
    -------
    scores : dict
        ``f1``, ``precision``, ``recall``, ``average_precision``, and ``frames``: how many are true.
    undefined : dict
        Why a score is None, by its name.
    """
    true, yes = int(truth.sum()), int(decided.sum())
    right = int((truth & decided).sum())
    undefined: dict[str, str] = {}
    if not yes:
        undefined["precision"] = f"{name!r} is never predicted"
    if not true:
        reason = f"no scored frame is annotated {name!r}"
        undefined |= dict.fromkeys(("f1", "recall", "average_precision"), reason)
    if true == len(truth):
        reason = f"every scored frame is annotated {name!r}"
        undefined |= dict.fromkeys(("f1", "precision", "average_precision"), reason)
    scores: JsonDict = {
        "f1": 2 * right / max(true + yes, 1),
        "precision": right / max(yes, 1),
        "recall": right / max(true, 1),
        "average_precision": float(average_precision_score(truth, confidence)) if true else 0.0,
    }
    return scores | dict.fromkeys(undefined, None) | {"frames": true}, undefined


def baselines(rates: np.ndarray, *, exclusive: bool) -> dict[str, dict[str, float | None]]:
    """Return what two predictors that do not look at the tracks score.

    ``majority`` always gives the most frequent answer, ``chance`` guesses answers as often as they
    are true. With p the share of the frames in which a class is true:

    ========  ==========================================  =======================================
    score     majority                                    chance
    ========  ==========================================  =======================================
    accuracy  one class per frame: max p; else the mean   one class per frame: the sum of p²; else
              of max(p, 1 - p) over the classes           the mean of p² + (1 - p)²
    F1        2 p / (1 + p) of a class that is always     p: expected precision and recall are
              predicted, 0 of one that never is           both p
    AP        p: all frames have the same confidence      p: the confidence says nothing
    ========  ==========================================  =======================================

    F1 and AP are averaged over the classes; None if a class is never or always true. Those of
    ``chance`` are computed from expected counts.

    Parameters
    ----------
    rates : ndarray
        (classes,): p, from the annotations of the frames that are scored.
    exclusive : bool
        Whether each frame has exactly one class.

    Returns
    -------
    dict of dict
        ``accuracy``, ``macro_f1`` and ``mean_average_precision`` of ``majority`` and ``chance``.
    """
    often = rates > 0.5
    accuracy = np.maximum(rates, 1 - rates).mean(), (rates**2 + (1 - rates) ** 2).mean()
    if exclusive:
        often = np.arange(len(rates)) == rates.argmax()
        accuracy = rates.max(), (rates**2).sum()
    defined = bool(((rates > 0) & (rates < 1)).all())
    f1 = np.where(often, 2 * rates / (1 + rates), 0.0), rates
    return {
        name: {
            "accuracy": float(accuracy[number]),
            "macro_f1": float(f1[number].mean()) if defined else None,
            "mean_average_precision": float(rates.mean()) if defined else None,
        }
        for number, name in enumerate(("majority", "chance"))
    }
