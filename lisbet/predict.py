"""Apply a model to recordings."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import track

from lisbet import model_dir
from lisbet.allocator import keep_freed_memory
from lisbet.config import Features, Window
from lisbet.data.bank import Bank, Plan, gather
from lisbet.data.load import load_records, summary
from lisbet.errors import DataError, ModelError
from lisbet.models.multitask import MultiTaskModel
from lisbet.options import EmbeddingOptions, InferenceOptions
from lisbet.publish import published, require_writable

log = logging.getLogger(__name__)

EMBEDDINGS = "features_lisbet_embedding.csv"


def compute_embeddings(options: EmbeddingOptions) -> None:
    """Write the embedding of every frame of every recording."""
    config, model = model_dir.load_model(options.model_path, options.weights_path)
    if model_dir.EMBEDDING not in config.out_heads:
        raise ModelError(
            f"{options.model_path} has the heads {', '.join(config.out_heads)}, but no embedding; "
            "make an embedder of it with betman export_embedder"
        )
    folder = options.output_path / "embeddings"
    require_writable(folder)
    bank = load_bank(options, config.input_features)
    for record_id, values in outputs(
        model, model_dir.EMBEDDING, bank, config.window, options.batch_size
    ):
        with published(folder / record_id / EMBEDDINGS) as beside:
            pd.DataFrame(values).to_csv(beside)
    print(f"embeddings of {len(bank)} recordings written to {folder}")


def load_bank(options: InferenceOptions, expected: Features) -> Bank:
    """Read the recordings, which must have exactly the features that the model knows.

    Raises
    ------
    DataError
        If they cannot be read or differ from the model's features.
    """
    records = load_records(options.data_path, options)
    if differences := expected.differences(records[0].features):
        raise DataError(
            f"{options.data_path} does not fit {options.model_path}: "
            f"{'; '.join(differences)}; see --select_coords and --rename_coords"
        )
    log.info("%s", summary(records))
    return Bank.from_records(records)


@torch.inference_mode()
def outputs(
    model: MultiTaskModel, head: str, bank: Bank, window: Window, batch_size: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Run a head over every frame of every recording.

    Yields
    ------
    record_id : str
    values : ndarray
        (frames, classes or embedding), float32. Frame f is described by the window ending at f.
    """
    keep_freed_memory()
    accelerator = Accelerator()
    model = model.to(accelerator.device).eval()
    console = Console(file=sys.stderr)
    numbers = track(
        range(len(bank)), "recordings", console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    for number in numbers:
        parts = []
        for start in range(0, int(bank.lengths[number]), batch_size):
            frame = np.arange(start, min(start + batch_size, int(bank.lengths[number])))
            windows = gather(bank, Plan.plain(np.full_like(frame, number), frame), window)
            parts.append(model({head: windows.to(accelerator.device)})[head].float().cpu())
        yield bank.ids[number], torch.cat(parts).numpy()


def read_embeddings(folder: Path) -> dict[str, np.ndarray]:
    """Read what compute_embeddings wrote.

    Returns
    -------
    dict of ndarray
        By record id: (frames, embedding).

    Raises
    ------
    DataError
        If there is none.
    """
    files = sorted(folder.rglob(EMBEDDINGS)) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no {EMBEDDINGS}; see betman compute_embeddings")
    return {
        file.parent.relative_to(folder).as_posix(): pd.read_csv(file, index_col=0).to_numpy()
        for file in files
    }
