"""Checks of plug-ins, for the tests of this package and of packages that add plug-ins.

Each function raises AssertionError, with what is wrong, if a plug-in does not do what its kind
promises. Other errors that a plug-in raises itself, such as DataError, are passed on::

    from lisbet import contracts
    from my_package.speed import Speed

    def test_speed():
        contracts.check_task(Speed)
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from lisbet.augment import Augmentation
from lisbet.core.config import Features, Window
from lisbet.core.json_types import JsonDict
from lisbet.data.bank import Bank, gather
from lisbet.data.labels import LabelReader, Labels
from lisbet.data.readers import DatasetReader, Kind, Peek, RecordingReader
from lisbet.data.record import Record, from_dataset
from lisbet.models.backbones import Backbone
from lisbet.options import TrainOptions
from lisbet.tasks import SupervisedTask, Task
from lisbet.training.loggers import Logger, Start

WINDOW = Window(size=12, offset=3)
FEATURES = Features(individuals=("a", "b"), keypoints=("nose", "neck", "tail"), space=("x", "y"))
BEHAVIORS = ("chase", "groom")
SAMPLES = 64


def example_bank(recordings: int = 3, frames: int = 60) -> Bank:
    """Return random recordings of two annotated animals, the same at each call."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(recordings):
        position = rng.random((frames, *FEATURES.shape), dtype=np.float32)
        position[rng.random(position.shape[:3]) < 0.1] = np.nan
        active = np.zeros((frames, len(BEHAVIORS)), dtype=bool)
        active[np.arange(frames), rng.integers(len(BEHAVIORS), size=frames)] = True
        active[:5] = False
        record = Record.in_memory(f"r{number}", position, FEATURES)
        records.append(replace(record, labels=Labels(BEHAVIORS, active)))
    return Bank.from_records(records)


def check_task(kind: type[Task], **settings: object) -> None:
    """Check a task, with some values of its settings.

    Raises
    ------
    AssertionError
        If it does not keep the contract of Task.
    """
    assert not inspect.isabstract(kind), f"{kind.__name__} has abstract methods"
    task, bank = kind(**settings), example_bank(max(3, kind.min_recordings))
    assert 0 < task.slowest <= 1, "slowest must be a fraction of the recording's speed"
    task.check(bank)
    task.fit(bank, bank)
    uniform = np.random.default_rng(1).random((SAMPLES, task.columns))
    try:
        index, labels = task.sample(uniform.copy(), bank, WINDOW)
    except IndexError as error:
        raise AssertionError(
            f"sample raises IndexError ({error}); columns is {task.columns}, and it may need more"
        ) from error
    windows = gather(bank, index, WINDOW)
    assert windows.shape == (SAMPLES, WINDOW.size, *FEATURES.shape), "an index of other windows"
    assert isinstance(labels, np.ndarray), f"labels must be a NumPy array, not {type(labels)}"
    assert len(labels) == SAMPLES, "one label for each sample is needed"
    again, same_labels = task.sample(uniform.copy(), bank, WINDOW)
    same = torch.equal(gather(bank, again, WINDOW), windows)
    assert same, "samples are not a function of `uniform`"
    assert np.array_equal(labels, same_labels), "labels are not a function of `uniform`"
    if task.around is not None:
        labels = _measured(task, gather(bank, index, task.around))
    elif not task.supervised:
        assert labels.dtype == np.float32, f"labels must be float32, not {labels.dtype}"
        assert {*labels.tolist()} == {0.0, 1.0}, "labels must be 0 and 1, and both come up"
    _check_transform(task, windows, uniform)
    one, _ = task.sample(uniform[5:6].copy(), bank, WINDOW)
    assert torch.equal(gather(bank, one, WINDOW)[0], windows[5]), "a sample depends on the others"

    for hidden_dim in (None, 7):
        head = task.head(5, hidden_dim, WINDOW).build()
        embeddings = torch.rand(SAMPLES, WINDOW.size, 5)
        frame = getattr(head, "output_token_idx", None)
        logits = head(embeddings if frame is None else embeddings[:, frame])
        answers = torch.from_numpy(labels)
        loss = task.loss(logits, answers)
        assert loss.ndim == 0, "the loss must be a scalar"
        assert bool(loss.isfinite()), "the loss of random logits is not finite"
        torch.autograd.backward(loss)
        assert all(w.grad is not None for w in head.parameters()), "the loss misses some weights"
    _check_score(task, logits.detach(), answers)
    if isinstance(task, SupervisedTask):
        _check_supervised(task, logits.detach().numpy(), bank)


def _measured(task: Task, around: torch.Tensor) -> np.ndarray:
    """Return the labels that a task computes from tracks."""
    task.standardise(around)
    labels = task.measure(around.clone())
    assert isinstance(labels, torch.Tensor), "measure must return a tensor"
    assert len(labels) == len(around), "one label for each sample is needed"
    again = task.measure(around.clone())
    assert torch.equal(labels.nan_to_num(), again.nan_to_num()), "measure is not a function"
    one = task.measure(around[5:6].clone())[0]
    torch.testing.assert_close(
        one, labels[5], equal_nan=True, msg="the label of a sample depends on the others"
    )
    return labels.numpy()


def _check_transform(task: Task, windows: torch.Tensor, uniform: np.ndarray) -> None:
    changed = task.transform(windows.clone(), uniform.copy())
    assert changed.shape == windows.shape, "transform changes the shape of the windows"
    assert changed.dtype == windows.dtype, "transform changes the type of the windows"
    assert bool(changed.isfinite().all()), "transform makes windows that are not finite"
    again = task.transform(windows.clone(), uniform.copy())
    assert torch.equal(changed, again), "transform is not a function of `uniform`"
    one = task.transform(windows[5:6].clone(), uniform[5:6].copy())
    assert torch.equal(one[0], changed[5]), "a transformed sample depends on the others"
    same = torch.equal(changed, windows)
    assert task.transforms != same, "transforms must say whether transform changes windows"


def _check_score(task: Task, logits: torch.Tensor, labels: torch.Tensor) -> None:
    counts = task.count(logits, labels)
    assert counts.shape == (task.score_counts,), f"expected {task.score_counts} counts"
    assert counts.dtype == torch.int64, "counts must be integers"
    halves = task.count(logits[:20], labels[:20]) + task.count(logits[20:], labels[20:])
    assert torch.equal(counts, halves), "the counts of parts do not add up"
    score = task.score_of(counts)
    assert 0 <= score <= 1, f"the score {score} is not in [0, 1]"


def _check_supervised(task: SupervisedTask, logits: np.ndarray, bank: Bank) -> None:
    classes = task.classes
    assert len(classes) == logits.shape[1], "there is not one logit for each class"
    decided = task.decide(logits)
    assert decided.shape == logits.shape, "decide must return (frames, classes)"
    assert decided.dtype == bool, "decide must return bool"
    active = bank.active()
    annotated = np.zeros((len(active), len(classes)), dtype=bool)
    for number, name in enumerate(bank.behaviors):
        if name in classes:
            annotated[:, classes.index(name)] = active[:, number]
    truth = task.true_classes(annotated, classes)
    assert truth.shape == annotated.shape, "true_classes must return (frames, classes)"
    random = np.random.default_rng(2).normal(size=truth.shape)
    report, confusion = task.report(truth, random, classes, None)
    keys = {"accuracy", "baselines", "classes", "undefined"}
    assert keys <= report.keys(), f"the report lacks {', '.join(keys - report.keys())}"
    assert list(report["classes"]) == list(classes), "the report must have all classes"
    assert len(confusion) == len(classes), "the confusion needs one row for each class"


def check_backbone(kind: type[Backbone], **settings: object) -> None:
    """Check a backbone, with some values of its settings.

    Raises
    ------
    AssertionError
        If it does not keep the contract of Backbone.
    """
    assert not inspect.isabstract(kind), f"{kind.__name__} has abstract methods"
    config = kind.Config.for_window(10, WINDOW.size, **settings)
    assert config.feature_dim == 10, "for_window must set feature_dim"
    longest = config.longest_window
    assert longest is None or longest >= WINDOW.size, "for_window must allow such a window"
    assert config.head_hidden_dim >= 1, "head_hidden_dim must be positive"
    assert kind.Config.derived <= kind.Config.model_fields.keys(), "derived names an unknown field"
    torch.manual_seed(0)
    network = kind(config).eval()
    windows = torch.rand(6, WINDOW.size, 10)
    embeddings = network(windows)
    expected = (6, WINDOW.size, config.embedding_dim)
    assert embeddings.shape == expected, f"expected embeddings {expected}, got {embeddings.shape}"
    assert bool(embeddings.isfinite().all()), "embeddings are not finite"
    for frame in (-1, -4, 0):
        torch.testing.assert_close(
            network.frame_embedding(windows, frame), embeddings[:, frame], rtol=1e-5, atol=1e-6,
            msg=f"frame_embedding of frame {frame} differs from forward",
        )  # fmt: skip
    torch.testing.assert_close(
        network(windows[2:3])[0], embeddings[2], rtol=1e-5, atol=1e-6,
        msg="the embedding of a window depends on the others in its batch",
    )  # fmt: skip
    torch.autograd.backward(network(windows).sum())
    idle = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert not idle, f"weights without a gradient: {', '.join(idle)}"
    values = network.state_dict().values()
    assert all(v.dtype == torch.float32 for v in values), "weights must be float32"
    kind(config).load_state_dict(network.state_dict())
    classes = {type(module).__name__ for module in network.modules()}
    assert set(kind.fsdp_layers) <= classes, "fsdp_layers names layers that are not there"


def check_recording_reader(reader: RecordingReader, files: Sequence[Path]) -> Record:
    """Check a reader of recordings on the files of one recording; return the recording.

    Raises
    ------
    AssertionError
        If it does not keep the contract of RecordingReader.
    """
    assert isinstance(reader.patterns, tuple), "patterns must be a tuple"
    for file in files:
        assert not reader.patterns or any(reader.matches(f.name) for f in files), (
            f"{file.name} does not match the documented names {reader.patterns}"
        )
        kind = reader.recognise(Peek(file))
        assert kind is not None, f"{file.name} is not recognised"
        assert isinstance(kind, Kind), f"recognise must return a Kind or None, not {kind!r}"
        assert kind.usable, f"{file.name} is recognised as unusable"
    raw = reader.read(list(files))
    assert isinstance(raw, xr.Dataset), f"read must return an xarray.Dataset, not {type(raw)}"
    record = from_dataset("r", files[0], raw)
    assert record.frames > 0, "there are no frames"
    assert record.position.shape == (record.frames, *record.features.shape), "a wrong shape"
    head = from_dataset("r", files[0], reader.read_head(list(files)))
    assert head.features == record.features, "head has other names than read"
    again = from_dataset("r", files[0], reader.read(list(files)))
    assert again.digest == record.digest, "reading twice gives different tracks"
    return record


def check_dataset_reader(reader: DatasetReader, path: Path) -> list[Record]:
    """Check a reader of whole datasets on one; return its recordings.

    Raises
    ------
    AssertionError
        If it does not keep the contract of DatasetReader.
    """
    assert reader.recognises(path), f"{path} is not recognised"
    assert not reader.recognises(path / "no-such-dataset"), "a path without dataset is recognised"
    records = reader.read(path, False)
    assert records, "there are no recordings"
    assert len({record.id for record in records}) == len(records), "ids are not unique"
    for record in records:
        first = record.tracks.read(0, 1)
        assert first.shape == (1, *record.features.shape), f"{record.id}: wrong shape"
        known = first[np.isfinite(first)]
        scaled = ((known >= 0) & (known <= 1)).all()
        assert scaled or not reader.prepared, f"{record.id}: not scaled to [0, 1]"
    return records


def check_annotation_reader(
    reader: LabelReader, file: Path, frames: int, fps: float | None
) -> Labels:
    """Check a reader of annotations on a file of a recording; return the annotations.

    Raises
    ------
    AssertionError
        If it does not keep the contract of LabelReader.
    """
    assert file in reader.find(file.parent), f"{file.name} does not match {reader.patterns}"
    if reader.recognises is not None:
        assert reader.recognises(file), f"{file.name} is not recognised"
    labels = reader.read(file, frames, fps)
    assert isinstance(labels, Labels), f"read must return Labels, not {type(labels)}"
    shape = (frames, len(labels.behaviors))
    assert labels.active.shape == shape, f"expected {shape}, got {labels.active.shape}"
    assert labels.active.dtype == bool, "annotations must be bool"
    if reader.names is not None:
        assert set(reader.names(file)) == set(labels.behaviors), "names differs from read"
    return labels


def check_augmentation(kind: type[Augmentation], **parameters: object) -> None:
    """Check an augmentation, with some values of its parameters.

    Raises
    ------
    AssertionError
        If it does not keep the contract of Augmentation.
    """
    assert not inspect.isabstract(kind), f"{kind.__name__} has abstract methods"
    augmentation = kind(**parameters)
    augmentation.check(FEATURES, WINDOW)
    rng = np.random.default_rng(3)
    windows = torch.from_numpy(rng.random((SAMPLES, WINDOW.size, *FEATURES.shape), np.float32))
    windows[:, 2, 0, 1] = 0  # a missing point
    uniform = rng.random((SAMPLES, 1 + augmentation.columns(FEATURES)))
    changed = augmentation.apply(windows.clone(), uniform)
    assert changed.shape == windows.shape, "the shape of the windows changed"
    assert bool(changed.isfinite().all()), "the windows are not finite"
    again = augmentation.apply(windows.clone(), uniform.copy())
    assert torch.equal(changed, again), "the change is not a function of `uniform`"
    untouched = uniform[:, 0] >= augmentation.p
    rows = torch.from_numpy(untouched)
    assert torch.equal(changed[rows], windows[rows]), "windows that were not drawn are changed"
    rare = augmentation.model_copy(update={"p": 0.0})
    assert torch.equal(rare.apply(windows.clone(), uniform), windows), "p=0 changes windows"


def check_logger(logger: Callable[[TrainOptions, Start], Logger], folder: Path) -> None:
    """Check a logger, by logging two rows of a run in a folder.

    Raises
    ------
    AssertionError
        If it does not keep the contract of Logger.
    """
    options = TrainOptions(data_path=(Path("data"),))
    config: JsonDict = {
        "options": {"run_id": "run"}, "data": {}, "tracking": {"wandb_id": "contract"},
    }  # fmt: skip
    first = logger(options, Start(folder, config))
    assert isinstance(first, Logger), "a logger needs the methods log and finish"
    first.log({"step": 1, "epoch": 0.5, "time": "2000-01-01", "train_loss": 0.7}, {})
    first.finish(75)
    resumed = logger(options, Start(folder, config, step=1, resumed=True, rows=[{"step": 1}]))
    resumed.log({"step": 2, "epoch": 1.0, "time": "2000-01-01", "train_loss": 0.6}, {})
    resumed.finish(0)
