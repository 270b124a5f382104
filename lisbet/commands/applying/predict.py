"""Apply a model to recordings."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

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
from lisbet.commands.applying import result_files
from lisbet.commands.applying.bouts import bout_table, write_boris, write_bouts
from lisbet.commands.applying.result_tables import ResultTable, require_format
from lisbet.commands.applying.results import Results, settings_of
from lisbet.core.errors import DataError, ModelError, counted
from lisbet.data.inference import Recordings
from lisbet.data.record import Record
from lisbet.distributed.failure_watch import distributed_session
from lisbet.models import model_dir
from lisbet.models.locate import located
from lisbet.options import AnnotateOptions, EmbeddingOptions


def compute_embeddings(options: EmbeddingOptions) -> None:
    """Write the embedding of every frame of every recording."""
    kind = require_format(options.format)
    with ExitStack() as session:
        accelerator = session.enter_context(distributed_session(sharded=False))
        options = located(options)
        config = model_dir.read_config(options.model_path)
        if model_dir.EMBEDDING not in config.out_heads:
            raise ModelError(
                f"{options.model_path} has the heads {', '.join(config.out_heads)}, but no "
                "embedding; make an embedder of it with betman export_embedder"
            )
        options = prepared_as(options, config)
        folder = options.output_path / "embeddings"
        names = [result_files.EMBEDDING + result_files.SUFFIXES[options.format]]
        results = Results(
            folder, names, result_files.EMBEDDING_FILES,
            overwrite=options.overwrite, accelerator=accelerator,
            settings=settings_of(options, config),
        )  # fmt: skip
        session.enter_context(results)
        results.require_before_reading(options, config)
        config, model = model_dir.load_model(options.model_path, options.weights_path)
        bank = load_bank(options, config)
        results.begin(bank, options)
        accelerator.wait_for_everyone()  # nobody writes before all have checked their recordings
        columns = tuple(map(str, range(config.backbone_config.embedding_dim)))
        for number, values in outputs(
            model, model_dir.EMBEDDING, bank, config.window, device=accelerator.device,
            batch_size=options.batch_size, fps_scaling=options.fps_scaling, bf16=options.uses_bf16,
            progress=accelerator.is_main_process,
        ):  # fmt: skip
            table = table_of(bank.records[number], values, columns, config.model_id)
            results.write(table.recording, [partial(kind.write, table, model_dir.EMBEDDING)])
        results.wait()
        accelerator.wait_for_everyone()
        results.finish()
        accelerator.print(f"embeddings of {counted(len(bank), 'recording')} written to {folder}")


def annotate_behavior(options: AnnotateOptions) -> None:
    """Write the behaviours of every frame of every recording."""
    require_format(options.format)
    with ExitStack() as session:
        accelerator = session.enter_context(distributed_session(sharded=False))
        options = located(options)
        config = model_dir.read_config(options.model_path)
        task = supervised_head(config, options.task)
        require_threshold(task, options.threshold)
        options = prepared_as(options, config)
        folder = options.output_path / "annotations"
        results = Results(
            folder, _annotation_files(options), result_files.ANNOTATION_FILES,
            overwrite=options.overwrite, accelerator=accelerator,
            settings=settings_of(options, config),
        )  # fmt: skip
        session.enter_context(results)
        results.require_before_reading(options, config)
        config, model = model_dir.load_model(options.model_path, options.weights_path)
        columns = tuple(class_names(config, task))
        bank = load_bank(options, config)
        if options.bouts or options.boris:
            _require_rates(bank)
        results.begin(bank, options)
        accelerator.wait_for_everyone()  # nobody writes before all have checked their recordings
        for number, logits in outputs(
            model, task, bank, config.window, device=accelerator.device,
            batch_size=options.batch_size, fps_scaling=options.fps_scaling, bf16=options.uses_bf16,
            progress=accelerator.is_main_process,
        ):  # fmt: skip
            table = table_of(bank.records[number], logits, columns, config.model_id)
            results.write(table.recording, _writers(table, task, options))
        results.wait()
        accelerator.wait_for_everyone()
        results.finish()
        accelerator.print(f"annotations of {counted(len(bank), 'recording')} written to {folder}")


def table_of(
    record: Record, values: np.ndarray, columns: tuple[str, ...], model_id: str
) -> ResultTable:
    """Return the table of a recording."""
    return ResultTable(values, columns, record.id, model_id, record.fps, record.start_s or 0.0)


def _annotation_files(options: AnnotateOptions) -> list[str]:
    """Return the names of the files of a recording, in the order of `_writers`."""
    suffix = result_files.SUFFIXES[options.format]
    return [
        result_files.ANNOTATION + suffix,
        *([result_files.PROBABILITY + suffix] if options.probabilities else ()),
        *([result_files.BOUTS] if options.bouts else ()),
        *([result_files.BORIS_EVENTS] if options.boris else ()),
    ]


def _writers(
    logits: ResultTable, task: str, options: AnnotateOptions
) -> list[Callable[[Path], None]]:
    """Return what writes the files of a recording, from the logits of its frames."""
    kind, answers = require_format(options.format), supervised_task(task)
    active = answers.decide(thresholded(logits.values, options.threshold))
    table = replace(logits, values=active.astype(np.int64))
    writers: list[Callable[[Path], None]] = [partial(kind.write, table, "annotation")]
    if options.probabilities:
        likely = replace(logits, values=answers.probabilities(logits.values))
        writers.append(partial(kind.write, likely, "probability"))
    if options.bouts or options.boris:
        found = bout_table(active, logits.columns, logits.fps or 1.0, logits.start_s)
        if options.bouts:
            writers.append(partial(write_bouts, found))
        if options.boris:
            writers.append(partial(write_boris, found, table))
    return writers


def _require_rates(bank: Recordings) -> None:
    """Refuse bouts in seconds of recordings whose frame rate is not known."""
    if unknown := [record.id for record in bank.records if record.fps is None]:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise DataError(
            f"the frame rate of {', '.join(unknown[:3])}{more} is not known, so bouts cannot be "
            "given in seconds; pass --fps"
        )
