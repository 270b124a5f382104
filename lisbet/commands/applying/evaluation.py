"""Compare a model with annotations."""

import logging

import numpy as np
import pandas as pd

from lisbet.api.inference import (
    class_names,
    load_bank,
    outputs,
    prepared_as,
    require_threshold,
    supervised_head,
    supervised_task,
    thresholded,
)
from lisbet.core import drawing
from lisbet.core.errors import ConfigError, DataError, LisbetError, counted
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.results import require_result_files
from lisbet.core.yaml_files import write_yaml
from lisbet.data.bank import Bank
from lisbet.data.inference import Recordings
from lisbet.distributed.failure_watch import distributed_session
from lisbet.models import model_dir
from lisbet.models.locate import located
from lisbet.options import EvaluateOptions
from lisbet.tasks._frame_scores import MEANS
from lisbet.training.datasets.run_split import RunSplit, listed

log = logging.getLogger(__name__)

REPORT, CONFUSION, PICTURE = "evaluation_report.yml", "confusion_matrix.csv", "confusion_matrix"


def evaluate_model(options: EvaluateOptions) -> None:
    """Write evaluations/<model_id>/ and print the scores."""
    options = located(options)
    config = model_dir.read_config(options.model_path)
    task = supervised_head(config, options.task)
    require_threshold(task, options.threshold)
    classes = class_names(config, task)
    if options.ignore_index is not None and options.ignore_index >= len(classes):
        raise ConfigError(
            f"--ignore_index={options.ignore_index}: there are only {len(classes)} classes, "
            f"numbered from 0: {', '.join(classes)}"
        )
    split = _run_split(options)
    options = prepared_as(options, config)
    folder = options.output_path / "evaluations" / config.model_id
    require_writable(folder)
    picture = folder / f"{PICTURE}.{options.format}"
    paths = [folder / REPORT, folder / CONFUSION, picture]
    require_result_files(paths, root=folder, overwrite=options.overwrite)
    config, model = model_dir.load_model(options.model_path, options.weights_path)
    with distributed_session(sharded=False) as accelerator:
        bank = load_bank(options, config)
        bank, in_training = _part(bank, split, options)
        truth = true_classes(bank, classes, task)
        found = outputs(
            model, task, bank, config.window, device=accelerator.device, progress=True,
            batch_size=options.batch_size, fps_scaling=options.fps_scaling, bf16=options.uses_bf16,
        )  # fmt: skip
        logits = np.concatenate([thresholded(values, options.threshold) for _, values in found])
    report, confusion = supervised_task(task).report(truth, logits, classes, options.ignore_index)
    head = {
        "model": config.model_id,
        "task": task,
        "split": options.split,
        "recordings": list(bank.ids),
        "in_training": in_training,
        "frames": len(truth),
        "threshold": options.threshold,
        "ignored": None if options.ignore_index is None else classes[options.ignore_index],
    }
    with write_file(folder / CONFUSION, overwrite=True) as temporary:
        confusion.to_csv(temporary)
    rows, columns = list(map(str, confusion.index)), list(map(str, confusion.columns))
    title = (
        f"{config.model_id}: {task}, {len(truth):,} frames of {counted(len(bank), 'recording')}"
        + ("" if options.split == "all" else f" ({options.split})")
    )
    figure = drawing.confusion_figure(confusion.to_numpy(), rows, columns, title)
    drawing.save(figure, picture, overwrite=True)
    with write_file(folder / REPORT, overwrite=True) as temporary:
        write_yaml(temporary, head | report)
    print(_table(report))
    print(_note(split, options.split, in_training, len(bank)))
    print(f"evaluation written to {folder}")


def _run_split(options: EvaluateOptions) -> RunSplit | None:
    """Return which recordings the model was trained on, where that is known.

    Raises
    ------
    ConfigError
        If one part of them is asked for, and it is not known.
    """
    try:
        split = RunSplit.read(options.model_path)
    except LisbetError as error:
        if options.split != "all":
            raise
        log.warning("%s", error)
        return None
    if options.split != "all":
        if split is None:
            raise ConfigError(
                f"--split={options.split}: there is no {model_dir.RUN_CONFIG} next to "
                f"{options.model_path}, which says what was held out; leave out --split, or copy "
                "it from the folder that the model was trained in"
            )
        split.require(options.split)
    return split


def _part(
    bank: Recordings, split: RunSplit | None, options: EvaluateOptions
) -> tuple[Recordings, list[str] | None]:
    """Return the recordings to score, and which of them were in training; None if not known."""
    if split is None:
        return bank, None
    if options.split == "all":
        return bank, split.in_training(bank.ids, options.data_path)
    records = split.choose(bank.records, options.split, options.data_path)
    bank = Recordings.share(records, list(range(len(records))))
    return bank, list(bank.ids) if options.split == "train" else []


def true_classes(bank: Bank, classes: list[str], task: str) -> np.ndarray:
    """Return what was annotated, over the classes of the model: (frames, classes), bool.

    Raises
    ------
    DataError
        If the annotations name a behaviour that the model does not know, or do not fit the task.
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
    return supervised_task(task).true_classes(truth, classes)


def _note(split: RunSplit | None, part: str, in_training: list[str] | None, count: int) -> str:
    """Say whether the scored recordings were in training."""
    if split is None or in_training is None:
        return (
            f"note: there is no {model_dir.RUN_CONFIG} next to the model, so it is not known "
            "whether these recordings were in training"
        )
    if part != "all":
        what = "held out of" if part == "dev" else "used for"
        return f"These recordings, or parts of them, were {what} training (--split={part})."
    if not in_training:
        return "None of these recordings has the id of one that the model was trained on."
    advice = (
        "--split=dev scores what was held out"
        if split.ids["dev"]
        else "nothing was held out, see --dev_ratio and --dev_recordings of train_model"
    )
    return (
        f"note: {len(in_training)} of these {count} recordings have the ids of recordings that "
        f"the model was trained on ({listed(in_training)}); on those it scores better than on new "
        f"ones: {advice}"
    )


def _table(report: JsonDict) -> str:
    """Format the scores for a terminal, next to those of the baselines."""
    names = ["accuracy", *MEANS.values()]
    columns = {"score": report} | report["baselines"]
    means = pd.DataFrame(
        {title: [own.get(name) for name in names] for title, own in columns.items()}, names
    )
    lines = [_printed(means), "", _printed(pd.DataFrame(report["classes"]).T)]
    lines += [
        f"{name} is undefined: {why}"
        for name, why in report["undefined"].items()
        if name != "classes"
    ]
    return "\n".join(lines)


def _printed(table: pd.DataFrame) -> str:
    """Return a table of numbers as text; what is undefined is a dash."""
    return (
        table.astype(object)
        .map(lambda value: "-" if value is None or value != value else f"{round(value, 3):g}")
        .to_string()
    )
