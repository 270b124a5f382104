"""Pictures of a model in training: its embeddings, and what it takes for what.

They are a function of the weights alone: the frames are spread evenly over the recordings, the
plane is that of the first two principal components, and no random number is drawn. The first
process makes them of the gathered weights, whatever the strategy.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lisbet.data.bank import Bank, WindowIndex, gather
from lisbet.data.excerpt import excerpt
from lisbet.models.multitask import MultiTaskModel
from lisbet.tasks import SupervisedTask
from lisbet.training.datasets.sampler import Sampler
from lisbet.training.inputs import TrainingInputs

FOLDER = "pictures"
FRAMES, AT_ONCE = 600, 100
"""Frames in a picture, and those that pass the network together."""


@torch.no_grad()
def draw(
    inputs: TrainingInputs, weights: dict[str, Tensor], device: torch.device
) -> dict[str, Path]:
    """Draw the pictures of a model; to be called by the first process alone.

    Parameters
    ----------
    inputs : Setup
        Its recordings: those held out, or where there are none those trained on.
    weights : dict of Tensor
        The whole state dict.
    device : torch.device
        Where to compute.

    Returns
    -------
    dict of Path
        The pictures in the model directory, by name.
    """
    model = network_of(inputs, weights, device)
    sampler = inputs.dev or inputs.train
    part = "held-out" if inputs.dev else "training"
    made = {"embeddings": _embeddings(inputs, sampler, model, part)}
    for name, task in inputs.tasks.items():
        if isinstance(task, SupervisedTask):
            made[f"confusion_{name}"] = _confusion(inputs, sampler, model, name, task, part)
    return made


def network_of(
    inputs: TrainingInputs, weights: dict[str, Tensor], device: torch.device
) -> MultiTaskModel:
    """Return the network with these weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):  # a new network draws its weights, which go at once
        model = MultiTaskModel(inputs.config)
    model.load_state_dict({key: value.float() for key, value in weights.items()})
    return model.to(device).eval()


def _embeddings(inputs: TrainingInputs, sampler: Sampler, model: MultiTaskModel, part: str) -> Path:
    from lisbet.core import drawing  # takes a second to import

    bank = bank_of(sampler)
    record, frame = _spread(bank)
    tokens = [
        model.backbone(windows.flatten(start_dim=2))[:, inputs.config.window.output_token].cpu()
        for windows in windows_of(inputs, bank, sampler, record, frame)
    ]
    names, what = _groups(bank, record, frame)
    figure = drawing.scatter_figure(
        plane(torch.cat(tokens).double().numpy()),
        names,
        f"{inputs.config.model_id}: {len(frame):,} {part} frames by {what}\n"
        "principal components of these frames' embeddings",
        ("component 1", "component 2"),
        () if what == "recording" else drawing.NO_BEHAVIORS,
    )
    path = inputs.folder / FOLDER / "embeddings.png"
    drawing.save(figure, path, root=inputs.folder, overwrite=True)
    return path


def _confusion(
    inputs: TrainingInputs,
    sampler: Sampler,
    model: MultiTaskModel,
    name: str,
    task: SupervisedTask,
    part: str,
) -> Path:
    from lisbet.core import drawing

    bank = sampler.banks[name]
    record, frame = _spread(bank)
    windows = windows_of(inputs, bank, sampler, record, frame)
    logits = torch.cat([model({name: some})[name].float().cpu() for some in windows]).numpy()
    assert bank.labels is not None
    truth = task.targets(bank.labels[bank.starts[record] + frame])
    classes = list(task.classes)
    if truth.ndim == 1:
        counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(counts, (truth, logits.argmax(axis=1)), 1)
        columns = classes
    else:
        yes, decided = truth > 0, logits > 0
        pairs = ((yes & decided), (yes & ~decided), (~yes & decided), (~yes & ~decided))
        counts = np.stack([pair.sum(axis=0) for pair in pairs], axis=1)
        columns = list(drawing.OUTCOMES)
    title = f"{inputs.config.model_id}: {name}, {len(frame):,} {part} frames"
    path = inputs.folder / FOLDER / f"confusion_{name}.png"
    figure = drawing.confusion_figure(counts, classes, columns, title)
    drawing.save(figure, path, root=inputs.folder, overwrite=True)
    return path


def plane(values: np.ndarray) -> np.ndarray:
    """Project (n, embedding) onto its first two principal components: (n, 2).

    The largest weight of each component is made positive, so that pictures do not flip.
    """
    centred = values - values.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.concatenate([axes, np.zeros((2, axes.shape[1]))])[:2]  # of an embedding of size 1
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    flat: np.ndarray = centred @ (axes * np.where(signs == 0, 1, signs)[:, None]).T
    return flat


def bank_of(sampler: Sampler, ids: list[str] | None = None) -> Bank:
    """Return recordings of a sampler, or all, as one bank; those of its tasks are views of one."""
    known = {
        record: (bank.starts[number], bank.lengths[number])
        for bank in sampler.banks.values()
        for number, record in enumerate(bank.ids)
    }
    ids = sorted(known) if ids is None else ids
    starts, lengths = (np.array(part) for part in zip(*(known[i] for i in ids), strict=True))
    return replace(
        next(iter(sampler.banks.values())), ids=tuple(ids), starts=starts, lengths=lengths
    )


def _spread(bank: Bank) -> tuple[np.ndarray, np.ndarray]:
    """Choose frames evenly over all recordings: (n,) recordings and (n,) frames."""
    count = min(FRAMES, bank.frames)
    return bank.locate(np.linspace(0, bank.frames - 1, count).astype(np.int64))


def windows_of(
    inputs: TrainingInputs, bank: Bank, sampler: Sampler, record: np.ndarray, frame: np.ndarray
) -> Iterator[Tensor]:
    """Yield the windows of some frames; what is not in memory is read for them alone."""
    loaded = inputs.loaded
    known = {r.id: r for r in loaded.part(sampler.part)} if loaded.memory is not None else {}
    records = [known[record_id] for record_id in bank.ids] if known else []
    for first in range(0, len(frame), AT_ONCE):
        own = slice(first, first + AT_ONCE)
        index = WindowIndex.plain(record[own], frame[own])
        if sampler.fps_scaling != 1:
            index = replace(index, speed=np.full(len(record[own]), sampler.fps_scaling))
        source = bank
        if records:
            source, index = excerpt(records, index, sampler.window)
        yield gather(source, index, sampler.window).to(sampler.device)


def _groups(bank: Bank, record: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, str]:
    """Name the behaviours of each frame, or where nothing is annotated its recording."""
    from lisbet.core import drawing

    if bank.labels is None or not bank.behaviors:
        return np.array(bank.ids)[record], "recording"
    active = bank.labels[bank.starts[record] + frame]
    return drawing.mixtures(bank.behaviors, active), "behaviour"
