"""motifs.yml next to motifs says from what they were computed: runs are resumed, never mixed."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from lisbet import __version__
from lisbet.commands.applying.result_files import find_results, motif_table
from lisbet.commands.motifs.saved import model_file
from lisbet.core.config import Config
from lisbet.core.errors import ConfigError, DataError, OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import require_file_target, write_file
from lisbet.core.storage.results import require_result_files
from lisbet.core.storage.write_log import WriteLog
from lisbet.core.yaml_files import read_config, read_yaml, write_yaml

RUN = "motifs.yml"
SCORES = "metrics_hmm.csv"
NUMBERED = re.compile(r"(?:machineAnnotation|model|history|metrics)_hmm(\d+)\.(?:csv|joblib|yaml)")
"""Names of files of one number of states."""


def metrics_file(n_states: int) -> str:
    """Return the name of the file of scores, which is written last."""
    return f"metrics_hmm{n_states}.yaml"


def history_file(n_states: int) -> str:
    """Return the name of the file of the log-likelihood of each iteration."""
    return f"history_hmm{n_states}.csv"


class MotifRun(Config):
    """From what the motifs in a folder are computed.

    Parameters
    ----------
    embeddings_sha256 : str
        Of the ids and values of the embeddings.
    options : dict
        Options on which the motifs depend.
    model : dict
        Name and weights of the model that computed the embeddings; None if that is not known.
    recordings, frames, embedding_dim : int
        How many there are.
    betman : str
        Version of the release that wrote it.
    """

    embeddings_sha256: str
    options: JsonDict
    model: JsonDict | None
    recordings: int
    frames: int
    embedding_dim: int
    betman: str = __version__

    @property
    def id(self) -> str:
        """Name of the run: the same for the same embeddings and options."""
        text = json.dumps([self.embeddings_sha256, self.options], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def read(cls, folder: Path) -> "MotifRun | None":
        """Read what a folder of motifs says; None where nothing does, as in the published tool's.

        Raises
        ------
        DataError
            If it cannot be read.
        """
        path = folder / RUN
        try:
            return read_config(path, cls)
        except ConfigError as error:
            raise DataError(
                f"{path} does not say from what the motifs next to it were computed: {error}. Move "
                "it away together with these motifs, or choose another folder"
            ) from error

    def write(self, folder: Path) -> None:
        """Write it, in place of an earlier one of ours."""
        with write_file(folder / RUN, root=folder, overwrite=True) as temporary:
            write_yaml(temporary, self.model_dump(mode="json"))

    def difference(self, other: "MotifRun") -> str:
        """Say what `other` is that this is not."""
        if self.embeddings_sha256 != other.embeddings_sha256:
            return (
                f"of other embeddings ({other.recordings} recordings, {other.frames} frames, "
                f"{other.embedding_dim} columns)"
            )
        mine, theirs = self.options, other.options
        return "with " + ", ".join(
            f"--{name}={theirs.get(name)} instead of {mine.get(name)}"
            for name in mine | theirs
            if mine.get(name) != theirs.get(name)
        )


def numbers_there(folder: Path) -> list[int]:
    """Return the numbers of states of which a folder holds any file, sorted."""
    if not folder.is_dir():
        return []
    names = {path.name for path in folder.rglob("*_hmm*")}
    return sorted({int(found[1]) for name in names if (found := NUMBERED.fullmatch(name))})


def files_of(folder: Path, n_states: int, record_ids: Sequence[str]) -> list[Path]:
    """Return the files that are written for a number of states; that of scores is the last."""
    return [
        folder / model_file(n_states),
        folder / history_file(n_states),
        *(folder / record_id / motif_table(n_states) for record_id in record_ids),
        folder / metrics_file(n_states),
    ]


def require_ours(folder: Path, numbers: Sequence[int], record_ids: Sequence[str]) -> None:
    """Refuse to write motifs where files are that betman did not write.

    Raises
    ------
    OutputError
        Naming the first one.
    """
    notes = WriteLog(folder)
    for path in [folder / RUN, folder / SCORES]:
        require_file_target(path, root=folder, overwrite=True, notes=notes)
    for n_states in numbers:
        paths = files_of(folder, n_states, record_ids)
        require_result_files(paths, root=folder, overwrite=True)


def require_this_run(
    folder: Path, run: MotifRun, numbers: Sequence[int], record_ids: Sequence[str], *,
    overwrite: bool,
) -> None:  # fmt: skip
    """Refuse to write motifs next to those of other embeddings or options.

    Raises
    ------
    OutputError
        Saying what differs, and what would stay.
    """
    there = numbers_there(folder)
    found = MotifRun.read(folder)
    if not there or (found is not None and found.id == run.id):
        return
    what = "without a motifs.yml that says from what they were computed"
    if found is not None:
        what = run.difference(found)
    listed = ", ".join(map(str, there))
    if not overwrite:
        raise OutputError(
            f"{folder} holds motifs of {listed} states, {what}; replace all of them with "
            "--overwrite, or choose another --output_path"
        )
    strangers = {
        record_id
        for n_states in there
        for record_id in find_results(folder, (motif_table(n_states),))
    }.difference(record_ids)
    left = [f"{n_states} states" for n_states in there if n_states not in set(numbers)]
    left += sorted(strangers)[:3]
    if left:
        raise OutputError(
            f"{folder} holds motifs of {listed} states, {what}; --overwrite would replace only "
            f"some of them: {', '.join(left)} would stay. Choose another --output_path, or include "
            "these"
        )


def scores_of(folder: Path, run_id: str, n_states: int) -> JsonDict | None:
    """Return the scores of a number of states; None if they are not there, or of another run."""
    path = folder / metrics_file(n_states)
    if not path.is_file():
        return None
    try:
        found = read_yaml(path)
    except ConfigError:
        return None
    return found if found.get("run") == run_id else None


def finished(
    folder: Path, run: MotifRun, n_states: int, record_ids: Sequence[str], *, fitted: bool
) -> JsonDict | None:
    """Return the scores of a number of states whose files are all there as they were written.

    Parameters
    ----------
    folder : Path
        Of the motifs.
    run : MotifRun
        The run that they must be of.
    n_states : int
        The number of states.
    record_ids : sequence of str
        The recordings.
    fitted : bool
        Whether there must be the model and its history, too.
    """
    scores = scores_of(folder, run.id, n_states)
    if scores is None:
        return None
    notes = WriteLog(folder)
    paths = files_of(folder, n_states, record_ids)
    return scores if all(map(notes.owns, paths if fitted else paths[2:])) else None


def require_one_run(folder: Path, numbers: Sequence[int]) -> MotifRun | None:
    """Return the run that motifs are of; None for those of the published tool.

    Raises
    ------
    DataError
        If some are not finished, or of another run.
    """
    run = MotifRun.read(folder)
    if run is None:
        return None
    other = [n_states for n_states in numbers if scores_of(folder, run.id, n_states) is None]
    if other:
        listed = ", ".join(map(str, other))
        raise DataError(
            f"{folder} does not hold finished motifs of {listed} states from the same embeddings "
            "and options; there are finished ones of "
            f"{_ranges(sorted(set(numbers_there(folder)) - set(_unfinished(folder, run))))}. Give "
            "betman segment_motifs again, or choose other --min_n_components and "
            "--max_n_components"
        )
    return run


def _unfinished(folder: Path, run: MotifRun) -> list[int]:
    return [n for n in numbers_there(folder) if scores_of(folder, run.id, n) is None]


def _ranges(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers))} states" if numbers else "none"
