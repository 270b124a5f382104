"""Compare a model with annotations."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

from lisbet import drawing, model_dir
from lisbet.core.files import require_writable, write_file
from lisbet.core.results import require_result_files
from lisbet.data.bank import Bank
from lisbet.errors import ConfigError, DataError
from lisbet.options import EvaluateOptions
from lisbet.predict import class_names, load_bank, outputs, prepared_as, supervised_head
from lisbet.processes.together import together
from lisbet.tasks.multiclass import OTHER
from lisbet.yaml_files import write_yaml

REPORT, CONFUSION, PICTURE = "evaluation_report.yml", "confusion_matrix.csv", "confusion_matrix.png"


def evaluate_model(options: EvaluateOptions) -> None:
    """Write evaluations/<model_id>/ and print the scores."""
    config = model_dir.read_config(options.model_path)
    task = supervised_head(config, options.task)
    classes = class_names(config, task)
    if options.ignore_index is not None and options.ignore_index >= len(classes):
        raise ConfigError(
            f"--ignore_index={options.ignore_index}: there are only {len(classes)} classes, "
            f"numbered from 0: {', '.join(classes)}"
        )
    options = prepared_as(options, config)
    folder = options.output_path / "evaluations" / config.model_id
    require_writable(folder)
    paths = [folder / name for name in (REPORT, CONFUSION, PICTURE)]
    require_result_files(paths, root=folder, overwrite=options.overwrite)
    config, model = model_dir.load_model(options.model_path, options.weights_path)
    with together(sharded=False) as accelerator:
        bank = load_bank(options, config)
        truth = true_classes(bank, classes, task)
        found = outputs(model, task, bank, config.window, options, accelerator)
        logits = np.concatenate([values for _, values in found])
    score = multiclass_report if task == "multiclass" else multilabel_report
    report, confusion = score(truth, logits, classes, options.ignore_index)
    head = {
        "model": config.model_id,
        "task": task,
        "recordings": list(bank.ids),
        "frames": len(truth),
        "ignored": None if options.ignore_index is None else classes[options.ignore_index],
    }
    with write_file(folder / CONFUSION, overwrite=True) as temporary:
        confusion.to_csv(temporary)
    rows, columns = list(map(str, confusion.index)), list(map(str, confusion.columns))
    picture = drawing.confusion_figure(confusion.to_numpy(), rows, columns, config.model_id)
    drawing.save(picture, folder / PICTURE, overwrite=True)
    with write_file(folder / REPORT, overwrite=True) as temporary:
        write_yaml(temporary, head | report)
    print(_table(report))
    print(f"evaluation written to {folder}")


def true_classes(bank: Bank, classes: list[str], task: str) -> np.ndarray:
    """Return what was annotated, over the classes of the model: (frames, classes), bool.

    Raises
    ------
    DataError
        If the annotations name a behaviour that the model does not know, or, for multiclass, a
        frame does not have exactly one class.
    """
    active = bank.active()
    names: tuple[str, ...] | list[str] = bank.behaviors
    numbered = [str(number) for number in range(len(classes))]
    if classes == numbered and len(names) == len(classes):
        names = classes  # a model from elsewhere does not name its classes: go by their order
    if strange := [
        name for name in names if name not in classes and active[:, names.index(name)].any()
    ]:
        raise DataError(
            f"the annotations name {', '.join(strange)}, but the model knows {', '.join(classes)}"
        )
    truth = np.zeros((len(active), len(classes)), dtype=bool)
    for number, name in enumerate(names):
        if name in classes:
            truth[:, classes.index(name)] = active[:, number]
    if task == "multiclass":
        if OTHER in classes:
            truth[~active.any(axis=1), classes.index(OTHER)] = True
        if (bad := np.flatnonzero(truth.sum(axis=1) != 1)).size:
            raise DataError(
                f"{len(bad)} frames do not have exactly one of the classes {', '.join(classes)} "
                f"(the first is frame {bad[0]} counted over all recordings)"
            )
    return truth


def multiclass_report(
    truth: np.ndarray, logits: np.ndarray, classes: list[str], ignore: int | None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Score one class per frame.

    Frames whose true class is ignored are left out everywhere. Predicting the ignored class in
    another frame is a mistake like any other.

    Parameters
    ----------
    truth : ndarray
        (frames, classes), bool, one True in each row.
    logits : ndarray
        (frames, classes).
    classes : list of str
        Names.
    ignore : int or None
        Number of the ignored class.

    Returns
    -------
    report : dict
        Scores over all classes and of each.
    confusion : DataFrame
        Frames by true class (rows) and predicted class (columns).
    """
    actual = truth.argmax(axis=1)
    kept = np.ones(len(actual), dtype=bool) if ignore is None else actual != ignore
    if not kept.any():
        raise DataError("no frame is left to score")
    actual, logits, truth = actual[kept], logits[kept].astype(np.float64), truth[kept]
    predicted = logits.argmax(axis=1)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = odds / odds.sum(axis=1, keepdims=True)
    shown = [number for number in range(len(classes)) if number != ignore]
    decided = np.eye(len(classes), dtype=bool)[predicted]
    matrix = confusion_matrix(actual, predicted, labels=range(len(classes)))
    confusion = pd.DataFrame(matrix, index=classes, columns=classes).iloc[shown]
    return {
        "accuracy": float(accuracy_score(actual, predicted)),
        **_class_scores(truth, decided, probability, classes, shown),
    }, confusion


def multilabel_report(
    truth: np.ndarray, logits: np.ndarray, classes: list[str], ignore: int | None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Score any number of classes per frame; the column of an ignored class does not count.

    Parameters and returns are those of `multiclass_report`; accuracy is the share of right answers
    over all frames and classes, and the confusion counts yes and no for each class.
    """
    shown = [number for number in range(len(classes)) if number != ignore]
    if not shown:
        raise ConfigError("--ignore_index leaves no class to score")
    decided = logits > 0
    counts = {
        classes[n]: confusion_matrix(truth[:, n], decided[:, n], labels=[True, False]).ravel()
        for n in shown
    }
    columns = ["true positive", "false negative", "false positive", "true negative"]
    confusion = pd.DataFrame.from_dict(counts, orient="index", columns=columns)
    return {
        "accuracy": float((truth[:, shown] == decided[:, shown]).mean()),
        **_class_scores(truth, decided, logits, classes, shown),
    }, confusion


def _class_scores(
    truth: np.ndarray,
    decided: np.ndarray,
    confidence: np.ndarray,
    classes: list[str],
    shown: list[int],
) -> dict[str, Any]:
    """Return the scores of each shown class, and their means over those that come up."""
    each: dict[str, dict[str, Any]] = {}
    for number in shown:
        actual, answer = truth[:, number], decided[:, number]
        precision, recall, f1, _ = precision_recall_fscore_support(
            actual, answer, average="binary", zero_division=0.0
        )
        each[classes[number]] = {
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
            "average_precision": (
                float(average_precision_score(actual, confidence[:, number]))
                if actual.any()
                else None
            ),
            "frames": int(actual.sum()),
        }
    scored = [scores for scores in each.values() if scores["frames"]]
    names = ("f1", "precision", "recall", "average_precision")
    macro = {
        f"macro_{name}" if name != "average_precision" else "mean_average_precision": (
            float(np.mean([scores[name] for scores in scored])) if scored else None
        )
        for name in names
    }
    return {**macro, "classes": each}


def _table(report: dict[str, Any]) -> str:
    """Lay the scores out for a terminal."""
    each = pd.DataFrame(report["classes"]).T
    means = {name: value for name, value in report.items() if name != "classes"}
    lines = [f"{name:22} {value:.3f}" for name, value in means.items() if value is not None]
    return "\n".join([*lines, "", each.round(3).to_string()])
