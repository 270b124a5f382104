"""From the options' datasets to the banks that each task is trained and scored on."""

import logging
from collections import Counter
from dataclasses import dataclass, replace

import torch

from lisbet.config import Dataset
from lisbet.data.bank import Bank
from lisbet.data.load import agree, load_records
from lisbet.data.record import Record
from lisbet.errors import DataError
from lisbet.options import TrainOptions
from lisbet.tasks import Task
from lisbet.training.sampler import Sampler, split

log = logging.getLogger(__name__)

DEVICE_SHARE = 0.5
"""The bank lies on the training device if it takes at most this share of its free memory."""


@dataclass(frozen=True)
class Loaded:
    """All recordings of a run.

    Parameters
    ----------
    bank : Bank
        The prepared recordings of all datasets.
    records : list of Record
        The same, with what was done to them.
    datasets : tuple of tuple of str
        Ids of the recordings of each dataset.
    """

    bank: Bank
    records: list[Record]
    datasets: tuple[tuple[str, ...], ...]

    def of_task(self, name: str, options: TrainOptions, part: set[str]) -> Bank:
        """Return the recordings of a part that a task is made of."""
        ids = [
            record_id
            for number in options.datasets_of(name)
            for record_id in self.datasets[number]
            if record_id in part
        ]
        return self.bank.subset(tuple(ids))


def load(options: TrainOptions, tasks: dict[str, Task]) -> Loaded:
    """Read every dataset; annotations only where a supervised task wants them.

    Raises
    ------
    DataError
        If recordings cannot be used, or datasets do not fit together.
    """
    names = _names(options.datasets)
    parts = []
    for number, dataset in enumerate(options.datasets):
        wanted = any(
            task.supervised and number in options.datasets_of(name) for name, task in tasks.items()
        )
        records = load_records(
            dataset if wanted else dataset.model_copy(update={"annotations": None}), options
        )
        if len(options.datasets) > 1:
            records = [replace(record, id=f"{names[number]}/{record.id}") for record in records]
        parts.append(records)
    records = agree([record for part in parts for record in part], options.datasets)
    ids = tuple(tuple(record.id for record in part) for part in parts)
    return Loaded(Bank.from_records(records), records, ids)


def samplers(
    options: TrainOptions, tasks: dict[str, Task], loaded: Loaded, device: torch.device
) -> tuple[Sampler, Sampler | None]:
    """Split the recordings, check the tasks, and return what draws from each part.

    Raises
    ------
    LisbetError
        If a task or an augmentation cannot work on these recordings.
    """
    for augmentation in options.data_augmentation:
        augmentation.check(loaded.bank.features, options.window)
    halves = [
        _split(ids, dataset, options)
        for ids, dataset in zip(loaded.datasets, options.datasets, strict=True)
    ]
    train_ids = {record_id for half, _ in halves for record_id in half}
    dev_ids = {record_id for _, half in halves for record_id in half}
    if _fits(loaded.bank, device):
        loaded = replace(loaded, bank=loaded.bank.to(device))
    made = {}
    for part, ids, sample, augmentations in (
        ("train", train_ids, options.train_sample, options.data_augmentation),
        ("dev", dev_ids, options.dev_sample, ()),
    ):
        banks = {name: loaded.of_task(name, options, ids) for name in tasks}
        for name, task in tasks.items() if ids else ():
            _check(task, name, banks[name], f"{part} part" if dev_ids else "")
        made[part] = Sampler(
            part,
            tasks,
            banks,
            options.window,
            options.seed,
            options.batch_size,
            sample,
            options.fps_scaling,
            augmentations,
            device,
        )
    for name, task in tasks.items():
        task.fit(loaded.of_task(name, options, train_ids | dev_ids), made["train"].banks[name])
    return made["train"], made["dev"] if dev_ids else None


def _split(
    ids: tuple[str, ...], dataset: Dataset, options: TrainOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold out recordings of one dataset; of several, one with a single recording is kept whole."""
    if len(ids) == 1 and len(options.datasets) > 1 and options.dev_ratio is not None:
        log.warning("%s has a single recording, which is trained on", dataset.path)
        return ids, ()
    try:
        return split(ids, options.dev_ratio, options.seed)
    except DataError as error:
        raise DataError(f"{dataset.path}: {error}") from error


def _names(datasets: tuple[Dataset, ...]) -> list[str]:
    """Name datasets by their folders, numbered where these are alike."""
    names = [dataset.path.resolve().name for dataset in datasets]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{n}-{name}" for n, name in enumerate(names)]


def _check(task: Task, name: str, bank: Bank, part: str) -> None:
    where = f"task {name!r}" + (f", {part}" if part else "")
    if not len(bank):
        raise DataError(f"{where}: no recordings; see --task_data and --dev_ratio")
    try:
        task.check(bank)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _fits(bank: Bank, device: torch.device) -> bool:
    """Whether the bank may lie on the training device."""
    if device.type != "cuda":
        return device.type == "cpu"
    free, _ = torch.cuda.mem_get_info(device)
    return bank.bytes <= DEVICE_SHARE * free
