"""Find the recordings of a dataset, and the tracking files of each."""

import logging
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.data.files.find import NAMED, look_into
from lisbet.data.files.folders import require_own_files, walk_folders
from lisbet.data.files.ids import check_folders, check_ids
from lisbet.data.files.versions import FileChoice

log = logging.getLogger(__name__)

SHOWN = 20
"""At most so many recordings are named in one report."""


@dataclass(frozen=True)
class Source:
    """Where one recording is.

    Parameters
    ----------
    id : str
        Its id.
    files : tuple of Path
        Its tracking files; several, if each holds one individual.
    video : str
        Name of its video, where it shares its folder with recordings of others, else empty.
    problem : str, optional
        Why it is not clear which of the files to read.
    """

    id: str
    files: tuple[Path, ...]
    video: str = ""
    problem: str | None = None

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in self.files if file.exists())


def find_sources(
    dataset: Dataset, words: tuple[str, ...] | None = None, choice: FileChoice | None = None
) -> list[Source]:
    """List the recordings below a folder, sorted by id.

    Parameters
    ----------
    dataset : Dataset
        The folder, and the format of its files.
    words : tuple of str, optional
        Use only recordings whose id contains one of these.
    choice : FileChoice, optional
        Which files of a folder are used, and as what.

    Raises
    ------
    DataError
        If the folder is missing, holds no recording of this format (and filter), or leads into
        itself, or if an id cannot be used.
    """
    data_path, choice = dataset.path, choice or FileChoice()
    if not data_path.is_dir():
        what = "is not a folder" if data_path.exists() else "does not exist"
        raise DataError(f"{data_path} {what}; expected a folder of recordings")
    sources, others, unused = [], Counter[str](), list[str]()
    left_out, without, skipped = list[str](), list[str](), Counter[str]()
    for folder, subfolders, names in walk_folders(data_path):
        if "zarr.json" in names:  # a converted dataset: its files are no recordings
            subfolders.clear()
            continue
        found = look_into(folder, names, dataset.format, choice)
        place = folder.relative_to(data_path).as_posix()
        folder_id = data_path.resolve().name if place == "." else place
        for video, files, problem in found.recordings:
            record_id = folder_id if not video else video if place == "." else f"{place}/{video}"
            sources.append(Source(record_id, files, video, problem))
        if not found.recordings:
            others.update(found.others)
            unused += [str(Path(place, name)) for name in found.unused]
            skipped += found.skipped
            if found.unusable:
                left_out.append(f"{folder}: {', '.join(found.unusable)}")
            elif names and not subfolders:
                what = ", ".join((found.unused or sorted(names))[:NAMED])
                log.info("%s has no tracking file; not used: %s", folder, what)
                without += [str(folder)] if found.unused else []
    if not sources:
        raise _no_recordings(dataset, choice, others, unused, skipped)
    for text in left_out[:SHOWN]:
        log.warning("left out: %s", text)
    if without:
        log.warning(
            "no file is recognised as a tracking file in %s%s; -v names their files",
            ", ".join(without[:NAMED]),
            f" and {len(without) - NAMED} more folders" if len(without) > NAMED else "",
        )
    kept = [source for source in sources if passes(source.id, words)]
    if not kept:
        raise none_passes(dataset, [source.id for source in sources], words)
    check_folders([(source.id, source.files[0].parent) for source in kept], data_path)
    check_ids([source.id for source in kept], data_path)
    require_own_files([(source.id, source.files) for source in kept], data_path)
    return sorted(kept, key=lambda source: source.id)


def _no_recordings(
    dataset: Dataset,
    choice: FileChoice,
    others: Counter[str],
    unused: list[str],
    skipped: Counter[str],
) -> DataError:
    """Build the error for a folder without recordings, naming what is in it."""
    others["zarr"] = int((dataset.path / "zarr.json").exists())
    formats = ", ".join(f"{count} of {name}" for name, count in others.items() if count)
    hint = f" Folders in other formats were found: {formats}; see --data_format." if formats else ""
    if unused:
        more = f" and {len(unused) - NAMED} more" if len(unused) > NAMED else ""
        hint += f" Found {', '.join(unused[:NAMED])}{more}."
    if skipped:
        kinds = ", ".join(f"{count} {ending}" for ending, count in skipped.most_common(NAMED))
        hint += f" Ignored by their endings: {kinds}."
    wanted = f"named like {choice.pattern} " if choice.pattern else ""
    wanted_format = "any format" if dataset.format == "auto" else f"the format {dataset.format}"
    return DataError(
        f"{dataset.path} holds no recordings: no file {wanted}in it or below is recognised as a "
        f"tracking file of {wanted_format}.{hint}"
    )


def passes(record_id: str, words: tuple[str, ...] | None) -> bool:
    """Whether an id matches a pattern, or folders in it do: mouse1 is in day1/mouse1/left."""
    if words is None:
        return True
    parts = record_id.split("/")
    for word in words:
        count = word.count("/") + 1
        inner = ("/".join(parts[n : n + count]) for n in range(len(parts) - count + 1))
        if word == record_id or any(fnmatchcase(part, word) for part in (record_id, *inner)):
            return True
    return False


def none_passes(dataset: Dataset, ids: list[str], words: tuple[str, ...] | None) -> DataError:
    """Build the error for a filter that no recording passes."""
    return DataError(
        f"none of the {len(ids)} recordings in {dataset.path} passes "
        f"--data_filter={','.join(words or ())}; they are named like {', '.join(ids[:5])}. It "
        "compares whole names; write '*word*' (or --filter_match=substring) for a part of a name"
    )
