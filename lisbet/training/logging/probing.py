"""Probe a model in training: how well a linear classifier finds behaviours in its embedding.

It is fitted to frames of the annotated recordings that are trained on, and scored on those held
out. The frames are spread evenly; no random number is drawn.
"""

import numpy as np
import torch
from torch import Tensor

from lisbet.core.errors import ConfigError
from lisbet.training.datasets.sampler import Sampler
from lisbet.training.inputs import TrainingInputs
from lisbet.training.logging.pictures import bank_of, network_of, windows_of

FRAMES = 4000
"""Frames of each part that are used."""


def require_annotated(inputs: TrainingInputs) -> None:
    """Refuse a run whose recordings cannot be probed, before it starts.

    Raises
    ------
    ConfigError
        Saying what is missing.
    """
    if inputs.dev is None:
        raise ConfigError(
            "--probe_every scores held-out recordings; pass --dev_ratio or --dev_recordings"
        )
    for sampler in inputs.samplers:
        bank = bank_of(sampler)
        if bank.labels is None or not bank.behaviors or not _annotated(inputs, sampler):
            raise ConfigError(
                "--probe_every needs annotations of recordings of both parts, but the "
                f"{sampler.part} part has none; see --annot_format"
            )


def _annotated(inputs: TrainingInputs, sampler: Sampler) -> list[str]:
    """Return the recordings of a sampler that have annotations."""
    known = {record.id for record in inputs.loaded.part(sampler.part) if record.labels is not None}
    return [record_id for record_id in bank_of(sampler).ids if record_id in known]


@torch.no_grad()
def probe(
    inputs: TrainingInputs, weights: dict[str, Tensor], device: torch.device
) -> dict[str, float]:
    """Score the embedding of a model; to be called by the main process alone.

    Parameters
    ----------
    inputs : TrainingInputs
        Its recordings, of which both parts have annotations.
    weights : dict of Tensor
        The whole state dict, for recordings as they are prepared.
    device : torch.device
        Where to compute.

    Returns
    -------
    dict of float
        ``probe/<behaviour>``: the average precision of each behaviour that can be scored.
    """
    from lisbet.probing.scores import score  # takes a second to import

    assert inputs.dev is not None
    model = network_of(inputs, weights, device)
    token = inputs.config.window.output_token
    sides, recordings = list[np.ndarray](), list[np.ndarray]()
    for sampler in (inputs.train, inputs.dev):
        bank = bank_of(sampler, _annotated(inputs, sampler))
        number = np.linspace(0, bank.frames - 1, min(FRAMES, bank.frames)).astype(np.int64)
        record, frame = bank.locate(number)
        tokens = [
            model.backbone.frame_embedding(windows.flatten(start_dim=2), token).float().cpu()
            for windows in windows_of(inputs, bank, sampler, record, frame)
        ]
        assert bank.labels is not None
        recordings.append(record)
        sides += [torch.cat(tokens).numpy(), bank.labels[bank.starts[record] + frame]]
    fit, labels, *test = sides
    found = score(fit, labels, recordings[0], *test)
    return {
        f"probe/{name}": scored.average_precision
        for name, scored in zip(bank.behaviors, found, strict=True)
        if scored is not None
    }
