"""From the options' datasets to the banks that each task is trained and scored on."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object

from lisbet.core.config import Dataset
from lisbet.core.errors import ConfigError
from lisbet.core.json_types import JsonDict
from lisbet.core.option_values import Size
from lisbet.data.bank import Bank
from lisbet.data.load import agree, load_records
from lisbet.data.preparation.compatibility import merged, preparation_of
from lisbet.data.record import Record
from lisbet.data.streaming_bank import StreamingBank
from lisbet.data.tracks import Stored
from lisbet.distributed.machine import Machine, reserve
from lisbet.distributed.memory import available_memory
from lisbet.distributed.memory_policy import bank_fits, fits_on_device, streaming_bytes
from lisbet.options import TrainOptions
from lisbet.tasks import Task
from lisbet.training.datasets.sampler import Sampler
from lisbet.training.datasets.split import check_tasks, cut_in_time, split_recordings

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Loaded:
    """All recordings of a run.

    Parameters
    ----------
    bank : Bank
        The recordings, or their two parts; without their tracks if they are not kept whole.
    records : list of Record
        The prepared recordings of all datasets, and what was done to them.
    datasets : tuple of tuple of str
        Ids of the recordings of each dataset.
    preparation : dict
        How they were prepared, see `preparation_of`.
    memory : int, optional
        Bytes for the recordings, where they are not kept whole: for those that are in memory, as
        they are not converted, and for the blocks that are drawn from.
    halves : list of Record, optional
        With ``--dev_split=time``: the two parts of each recording, see `cut_in_time`.
    """

    bank: Bank
    records: list[Record]
    datasets: tuple[tuple[str, ...], ...]
    preparation: JsonDict
    memory: int | None = None
    halves: list[Record] | None = None

    def part(self, name: str) -> list[Record]:
        """Return what may be drawn from for "train" or "dev", with an id each."""
        return self.records if self.halves is None else self.halves[name == "dev" :: 2]

    def of_task(self, name: str, options: TrainOptions, part: str, ids: set[str]) -> Bank:
        """Return the recordings, or their parts for "train" or "dev", that a task is made of."""
        numbers = [n for n in self._of_task(name, options) if self.records[n].id in ids]
        if self.halves is not None:
            numbers = [2 * number + (part == "dev") for number in numbers]
        return self.bank.subset(numbers)

    def whole_of_task(self, name: str, options: TrainOptions) -> Bank:
        """Return all whole recordings that a task is made of; of `halves`, without tracks."""
        numbers = self._of_task(name, options)
        if self.halves is None:
            return self.bank.subset(numbers)
        return Bank.outline([self.records[number] for number in numbers])

    def split_frames(self) -> dict[str, dict[str, list[int]]] | None:
        """Return first frame and end of each recording by part, where recordings are cut."""
        if self.halves is None:
            return None
        train = {half.id: [0, half.frames] for half in self.part("train")}
        ends = {record.id: record.frames for record in self.records}
        return {"train": train, "dev": {i: [end, ends[i]] for i, (_, end) in train.items()}}

    def _of_task(self, name: str, options: TrainOptions) -> list[int]:
        """Return the numbers of the recordings that a task is made of."""
        wanted = [i for number in options.datasets_of(name) for i in self.datasets[number]]
        numbers = {record.id: number for number, record in enumerate(self.records)}
        return [numbers[record_id] for record_id in wanted]

    @property
    def block_memory(self) -> int:
        """Bytes for blocks of recordings, where they are not kept whole."""
        assert self.memory is not None
        return self.memory - _bytes_in_memory(self.records)

    def fingerprint(self) -> str:
        """Return a hash of names, prepared tracks and behaviours of all recordings."""
        digest = hashlib.sha256(self.bank.features.model_dump_json().encode())
        for record in self.records:
            digest.update(f"{record.id}:{record.frames}:{record.digest}".encode())
            if record.labels is not None:
                digest.update(repr(record.labels.behaviors).encode())
                digest.update(record.labels.active.tobytes())
        return digest.hexdigest()


def load(options: TrainOptions, tasks: dict[str, Task], begun_with: Size | None = None) -> Loaded:
    """Read every dataset; annotations only where a supervised task wants them.

    The first process of a machine reads, and shares what it has read with the others of it.

    Parameters
    ----------
    options : TrainOptions
        What was asked for.
    tasks : dict of Task
        What is trained, by name.
    begun_with : Size, optional
        The memory that a resumed run began with, which holds unless ``--bank_memory`` is given.

    Raises
    ------
    ConfigError
        If the memory for the recordings is too small.
    DataError
        If recordings cannot be used, or datasets do not fit together.
    """
    machine = Machine()
    records: list[Record] = []
    datasets: tuple[tuple[str, ...], ...] = ()
    preparation: JsonDict = {}
    if machine.leads:
        records, datasets, preparation = _read(options, tasks)
    in_memory = _bytes_in_memory(records)
    known = records
    if machine.count > 1:
        outlines = list(map(_without_tracks, records)), datasets, preparation, in_memory
        known, datasets, preparation, in_memory = machine.broadcast(outlines)
    in_time = options.dev_split == "time"
    halves = cut_in_time(known, options) if in_time else None
    bank = Bank.outline(known if halves is None else halves)
    memory = _memory_of_parts(machine, bank, options, in_memory, begun_with)
    if memory is None:
        tracks = cut_in_time(records, options) if in_time else records
        return Loaded(_shared(machine, bank, tracks), known, datasets, preparation, halves=halves)
    if not machine.leads:
        records, _, _ = _read(options, tasks)
    if in_time:
        halves = cut_in_time(records, options)
    return Loaded(bank, records, datasets, preparation, memory, halves)


def _read(
    options: TrainOptions, tasks: dict[str, Task]
) -> tuple[list[Record], tuple[tuple[str, ...], ...], JsonDict]:
    names = _names(options.datasets)
    parts, preparations = [], []
    for number, dataset in enumerate(options.datasets):
        wanted = bool(options.probe_every) or any(
            task.supervised and number in options.datasets_of(name) for name, task in tasks.items()
        )
        records = load_records(
            dataset if wanted else dataset.model_copy(update={"annotations": None}), options
        )
        preparations.append(preparation_of(records, options))
        if len(options.datasets) > 1:
            records = [replace(record, id=f"{names[number]}/{record.id}") for record in records]
        parts.append(records)
    records = agree([record for part in parts for record in part], options.datasets)
    ids = tuple(tuple(record.id for record in part) for part in parts)
    return records, ids, merged(preparations)


def _without_tracks(record: Record) -> Record:
    """Return what others need to know of a recording that one process has read."""
    tracks = Stored(None, 0, record.frames, record.missing, record.digest, record.features)
    return replace(record, tracks=tracks)


def _bytes_in_memory(records: list[Record]) -> int:
    """Return the memory of recordings that are not in a store."""
    sizes = (r.frames * r.features.size * 4 for r in records if not isinstance(r.tracks, Stored))
    return sum(sizes)


def _memory_of_parts(
    machine: Machine, bank: Bank, options: TrainOptions, in_memory: int, begun_with: Size | None
) -> int | None:
    """Return the memory for the recordings; None if all processes can keep them whole.

    Raises
    ------
    ConfigError
        If recordings that are not converted do not fit into it, or if this machine has not the
        memory that a resumed run began with.
    """
    all_in_memory = in_memory == bank.frames * bank.features.size * 4
    given = options.bank_memory or begun_with
    if given is None:
        if all_in_memory:
            return None
        fits, blocks = bank_fits(bank.bytes), streaming_bytes(machine.count)
        everyone = gather_object([(fits, blocks)])
        if all(fits for fits, _ in everyone):
            return None
        # In whole KB, so that it can be read back from run_config.yml.
        return (in_memory + min(blocks for _, blocks in everyone)) // 2**10 * 2**10
    whole = given.bytes is None or bank.bytes <= given.bytes
    if options.bank_memory is None and not all_in_memory:
        need = bank.bytes if whole else machine.count * (given.bytes or 0) - in_memory
        _require_free(need, given, whole, options)
    if not whole and in_memory > (given.bytes or 0):
        raise ConfigError(
            f"--bank_memory={given}: the recordings take {bank.bytes / 2**20:.1f} MB, of which "
            f"{in_memory / 2**20:.1f} MB are not converted, and only converted ones can be read "
            "in parts; see betman convert_dataset"
        )
    return None if whole else given.bytes


def _require_free(need: int, given: Size, whole: bool, options: TrainOptions) -> None:
    """Refuse to resume a run, on all processes, where one machine lacks the memory for it."""
    free = min(gather_object([available_memory()]))
    if all(gather_object([need <= free])):
        return
    what = "all recordings in memory" if whole else f"--bank_memory={given} for each process"
    raise ConfigError(
        f"{options.output_path / 'models' / str(options.run_id)} was begun with {what}, which its "
        f"samples follow from; that takes {need / 2**20:.1f} MB, and {free / 2**20:.1f} MB are "
        "free here. Resume it with more memory (--mem of the job, or another machine), or start "
        "another --run_id with a smaller --bank_memory"
    )


def _shared(machine: Machine, bank: Bank, records: list[Record]) -> Bank:
    """Fill a bank: in memory that the processes of this machine share, if there are several."""
    if machine.count == 1:
        return bank.filled(records)
    place = _shared_file(bank.bytes) if machine.leads else None
    try:
        shape = (bank.rows, *bank.features.shape)
        tracks = np.memmap(machine.broadcast(place), np.float32, "r+", shape=shape)
        machine.wait()
    finally:
        if place is not None:
            place.unlink()  # all have opened it: the memory goes with the last of them
    if machine.leads:
        bank = bank.filled(records, tracks)
    machine.wait()
    return replace(bank, tracks=torch.from_numpy(tracks))


def _shared_file(size: int) -> Path:
    """Make a file of zeros in shared memory; where that is too small, among temporary files."""
    enough = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > size
    handle, name = tempfile.mkstemp(prefix="lisbet-", dir=SHARED_MEMORY if enough else None)
    try:
        reserve(handle, size)  # a full one is an error here, not when it is used
    except OSError:
        os.unlink(name)
        raise
    finally:
        os.close(handle)
    return Path(name)


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
    whole = {name: loaded.whole_of_task(name, options) for name in tasks}
    check_tasks(tasks, {"train": whole}, options)
    train_ids, dev_ids = split_recordings(loaded.datasets, options)
    if loaded.memory is None and _fits(loaded.bank, device):
        loaded = replace(loaded, bank=loaded.bank.to(device))
    banks = {
        part: {name: loaded.of_task(name, options, part, ids) for name in tasks}
        for part, ids in (("train", train_ids), ("dev", dev_ids))
        if ids
    }
    check_tasks(tasks, banks, options)
    made = {}
    for part, sample, augmentations in (
        ("train", options.train_sample, options.data_augmentation),
        ("dev", options.dev_sample, ()),
    ):
        if part not in banks:
            continue
        made[part] = Sampler(
            part,
            tasks,
            banks[part],
            options.window,
            options.seed,
            options.batch_size,
            sample,
            options.fps_scaling,
            augmentations,
            device,
        )
        if loaded.memory is not None:
            made[part] = _moving(made[part], loaded, parts=len(banks))
    for name, task in tasks.items():
        task.fit(whole[name], made["train"].banks[name])
        if task.around is not None:
            task.standardise(made["train"].examples(name))
    return made["train"], made.get("dev")


def _moving(sampler: Sampler, loaded: Loaded, parts: int) -> Sampler:
    """Let the recordings of a sampler be brought in turn; tasks on the same ones share them."""
    records = {record.id: record for record in loaded.part(sampler.part)}
    distinct = {bank.ids: bank for bank in sampler.banks.values()}
    parts *= len(distinct)
    moving = {
        ids: StreamingBank.over(
            bank,
            [records[record_id] for record_id in ids],
            memory=loaded.block_memory // parts,
            seed=sampler.seed,
            part=sampler.part,
            batch_size=sampler.batch_size,
            steps=sampler.steps,
            device=sampler.device,
            parts=parts,
            reserved=_bytes_in_memory(loaded.records),
        )
        for ids, bank in distinct.items()
    }
    return replace(sampler, banks={name: moving[b.ids] for name, b in sampler.banks.items()})


def _names(datasets: tuple[Dataset, ...]) -> list[str]:
    """Name datasets by their folders, numbered where these are alike."""
    names = [dataset.path.resolve().name for dataset in datasets]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{n}-{name}" for n, name in enumerate(names)]


def _fits(bank: Bank, device: torch.device) -> bool:
    """Whether the bank may lie on the training device."""
    if device.type != "cuda":
        return device.type == "cpu"
    return fits_on_device(bank.bytes, device)
