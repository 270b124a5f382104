"""Which recordings, or which frames of each recording, are held out, and whether tasks can work."""

import logging
from fnmatch import fnmatchcase

from lisbet.core.config import Dataset
from lisbet.core.errors import ConfigError, DataError, shortened
from lisbet.data.bank import Bank
from lisbet.data.reading import part_of
from lisbet.data.record import Record
from lisbet.options import TrainOptions
from lisbet.tasks import TASKS, Task
from lisbet.training.datasets.run_split import listed
from lisbet.training.datasets.sampler import split

log = logging.getLogger(__name__)


def cut_in_time(records: list[Record], options: TrainOptions) -> list[Record]:
    """Cut each recording in two: the frames to train on, and the last ones, which are held out.

    Each part is a recording of its own, with the same id: what is drawn from one, windows at other
    speeds included, has zeros where it reaches beyond that part.

    Parameters
    ----------
    records : list of Record
        Whole recordings.
    options : TrainOptions
        ``dev_ratio`` is the share of the frames that is held out, rounded to whole frames, at least
        one.

    Returns
    -------
    list of Record
        The two parts of the first recording, those of the second, and so on.

    Raises
    ------
    DataError
        If no frame of a recording would be left to train on.
    """
    assert options.dev_ratio is not None
    parts, too_short = [], []
    for record in records:
        first = record.frames - max(1, round(options.dev_ratio * record.frames))
        if first < 1:
            too_short.append(f"{record.id} ({record.frames})")
            continue
        parts += [part_of(record, 0, first), part_of(record, first, record.frames)]
    if too_short:
        raise DataError(
            f"--dev_split=time with --dev_ratio={options.dev_ratio:g} leaves none to train on of "
            f"the frames of {listed(too_short)}; choose a smaller --dev_ratio such as 0.2, or "
            "leave out recordings of a single frame"
        )
    return parts


def split_recordings(
    datasets: tuple[tuple[str, ...], ...], options: TrainOptions
) -> tuple[set[str], set[str]]:
    """Choose the recordings to train on and those to hold out.

    Parameters
    ----------
    datasets : tuple of tuple of str
        Ids of the recordings of each dataset.
    options : TrainOptions
        How they are split.

    Returns
    -------
    train, dev : set of str
        Ids. With ``--dev_split=time`` both are all of them.

    Raises
    ------
    LisbetError
        If a name fits no recording, or nothing is left to train on.
    """
    ids = [record_id for part in datasets for record_id in part]
    if options.dev_split == "time":
        return set(ids), set(ids)
    if options.dev_recordings is not None:
        dev = _named(options.dev_recordings, ids)
        if len(dev) == len(ids):
            raise ConfigError(
                f"--dev_recordings={','.join(options.dev_recordings)} holds out all {len(ids)} "
                "recordings and leaves none to train on; name fewer of them"
                + (_OR_IN_TIME if len(ids) == 1 else "")
            )
        return set(ids) - dev, dev
    halves = [
        _split_dataset(part, dataset, options)
        for part, dataset in zip(datasets, options.datasets, strict=True)
    ]
    train, dev = ({i for half in halves for i in half[number]} for number in (0, 1))
    if options.save_weights == "best" and not dev:
        raise ConfigError(
            "--save_weights=best needs held-out recordings, but each of the data paths "
            f"{', '.join(map(str, options.data_path))} has a single recording"
            f"{' that passes --data_filter' if options.data_filter else ''}, which is trained on; "
            "add a second recording to one of them, hold out the last part of each recording with "
            "--dev_split=time, or leave out --save_weights=best"
        )
    return train, dev


_OR_IN_TIME = ", or hold out the last part of each recording with --dev_split=time --dev_ratio=0.2"


def _named(patterns: tuple[str, ...], ids: list[str]) -> set[str]:
    """Return the recordings that ``--dev_recordings`` names."""
    found: set[str] = set()
    for pattern in patterns:
        # An id as it is first: it may hold characters that mean something in a pattern.
        fitting = {pattern} & set(ids) or {i for i in ids if fnmatchcase(i, pattern)}
        if not fitting:
            raise ConfigError(
                f"--dev_recordings: no recording has the id {shortened(pattern, 80)!r}, or fits it "
                f"as a pattern. The ids are: {listed(ids)}"
            )
        found |= fitting
    return found


def _split_dataset(
    ids: tuple[str, ...], dataset: Dataset, options: TrainOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold out recordings of one dataset; a single recording of one of several is trained on."""
    if len(ids) == 1 and len(options.datasets) > 1 and options.dev_ratio is not None:
        log.warning("%s has a single recording, which is trained on", dataset.path)
        return ids, ()
    try:
        return split(ids, options.dev_ratio, options.seed)
    except DataError as error:
        raise DataError(f"{dataset.path}: {error}") from error


def check_tasks(
    tasks: dict[str, Task], banks: dict[str, dict[str, Bank]], options: TrainOptions
) -> None:
    """Check that every task can make samples of the recordings of each part.

    Parameters
    ----------
    tasks : dict of Task
        By name.
    banks : dict of dict of Bank
        Recordings by part ("train", and "dev" if something is held out) and task.
    options : TrainOptions
        To name those that would work.

    Raises
    ------
    DataError
        Naming a choice of tasks or of held-out recordings that works.
    """
    for part, of_task in banks.items():
        for name, task in tasks.items():
            where = f"task {name!r}" + (f", {part} part" if len(banks) > 1 else "")
            if not len(of_task[name]):
                raise DataError(
                    f"{where}: no recordings of its data paths are in this part; change "
                    f"--task_data or {_held_out_by(options)}{_in_time(options)}"
                )
            if len(of_task[name]) < task.min_recordings:
                raise DataError(_too_few(name, tasks, banks, options))
            try:
                task.check(of_task[name])
            except DataError as error:
                raise DataError(f"{where}: {error}") from error


def _too_few(
    name: str, tasks: dict[str, Task], banks: dict[str, dict[str, Bank]], options: TrainOptions
) -> str:
    """Return the message for a task that needs more recordings, with choices that work."""
    counts = [len(of_task[name]) for of_task in banks.values()]
    least = tasks[name].min_recordings
    if len(banks) > 1:
        found = (
            f"{least} recordings in each part; you have {' + '.join(map(str, counts))} "
            "(train part + dev part)"
        )
    else:
        found = f"{least} recordings, but there is only {counts[0]} ({banks['train'][name].ids[0]})"
    others = [other for other, task in tasks.items() if task.min_recordings == 1] or [
        other for other, kind in TASKS.items() if kind.min_recordings == 1 and not kind.supervised
    ]
    ways = [f"Use --task_ids={','.join(others)}"]
    in_all = counts[0] if options.dev_split == "time" else sum(counts)
    if len(banks) > 1 and in_all >= least:
        if options.save_weights != "best":
            ways.append(f"drop {_held_out_by(options)}")
        if in_time := _in_time(options):
            ways.append(in_time.removeprefix(", or "))
    return f"task {name!r} needs {found}. {', '.join(ways)}, or add recordings"


def _held_out_by(options: TrainOptions) -> str:
    return "--dev_ratio" if options.dev_recordings is None else "--dev_recordings"


def _in_time(options: TrainOptions) -> str:
    """Propose ``--dev_split=time``, where it is not used."""
    if options.dev_split == "time":
        return ""
    if options.dev_recordings is None:
        return ", or hold out the last part of each recording with --dev_split=time"
    return f"{_OR_IN_TIME} instead of --dev_recordings"
