"""Which recordings a model was trained on and which were held out, as its run_config.yml says."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from lisbet.core.errors import ConfigError, DataError, first_message, shortened
from lisbet.core.json_types import JsonDict
from lisbet.core.yaml_files import read_yaml
from lisbet.data.reading import part_of
from lisbet.data.record import Record
from lisbet.models.model_dir import RUN_CONFIG

log = logging.getLogger(__name__)

LISTED = 10
"""Most recordings that are named in a message."""

Part = Literal["train", "dev"]


class _Data(BaseModel):
    """What is needed of ``data`` in run_config.yml."""

    split: dict[Part, tuple[str, ...]]
    split_frames: dict[Part, dict[str, tuple[int, int]]] = Field(default_factory=dict)


class _Run(BaseModel):
    data: _Data
    options: JsonDict = Field(default_factory=dict)


@dataclass(frozen=True)
class RunSplit:
    """The split of a run.

    Parameters
    ----------
    path : Path
        The run_config.yml.
    ids : dict
        Ids of the recordings by part, "train" and "dev"; those of a run on several data paths begin
        with the name of their folder.
    frames : dict
        By part, the first frame and the end of each recording of which only a part was used.
    data_paths : tuple of Path
        The data paths of the run, as they were given there.
    """

    path: Path
    ids: dict[str, frozenset[str]]
    frames: dict[str, dict[str, tuple[int, int]]]
    data_paths: tuple[Path, ...]

    @classmethod
    def read(cls, model_path: Path) -> "RunSplit | None":
        """Read the run_config.yml next to a model_config.yml; None if there is none.

        Raises
        ------
        ConfigError
            If it is there, but does not say how the recordings were split.
        """
        path = model_path.parent / RUN_CONFIG
        if not path.exists():
            return None
        try:
            run = _Run.model_validate(read_yaml(path))
        except ValidationError as error:
            raise ConfigError(
                f"{path} does not say which recordings were in training: {first_message(error)}"
            ) from error
        ids = {part: frozenset(run.data.split.get(part, ())) for part in ("train", "dev")}
        paths = str(run.options.get("data_path", "")).split(",")
        frames = {str(part): own for part, own in run.data.split_frames.items()}
        return cls(path, ids, frames, tuple(map(Path, paths)))

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """Ids of the run by what follows each slash in them, and by the whole id."""
        found: dict[str, list[str]] = {}
        for record_id in sorted(self.ids["train"] | self.ids["dev"]):
            parts = record_id.split("/")
            for number in range(len(parts)):
                found.setdefault("/".join(parts[number:]), []).append(record_id)
        return found

    def find(self, record_id: str, data_path: Path) -> list[str]:
        """Return the ids that a recording of a data path may have in the run: mostly one or none.

        They may begin with folders that are not in `record_id`: with the name of one of several
        data paths, or if `data_path` is a folder in that of the run.
        """
        found = self._by_end.get(record_id, [])
        if record_id in found:
            return [record_id]
        if len(found) > 1:
            here = data_path.resolve()
            prefixes = {here.name} | {
                f"{number}-{path.resolve().name}"
                for number, path in enumerate(self.data_paths)
                if path.resolve() == here
            }
            found = [i for i in found if i.removesuffix(f"/{record_id}") in prefixes] or found
        return found

    def in_training(self, record_ids: tuple[str, ...], data_path: Path) -> list[str]:
        """Return those recordings that the model was trained on, or on a part of them."""
        train = self.ids["train"]
        return [i for i in record_ids if not train.isdisjoint(self.find(i, data_path))]

    def require(self, part: str) -> None:
        """Refuse a part without recordings.

        Raises
        ------
        ConfigError
            If the run held nothing out.
        """
        if not self.ids[part]:
            raise ConfigError(
                f"--split={part}: {self.path} names no such recordings: none were held out. Train "
                "with --dev_ratio or --dev_recordings, or leave out --split"
            )

    def choose(self, records: tuple[Record, ...], part: str, data_path: Path) -> list[Record]:
        """Return the recordings of a part, cut to the frames that belong to it.

        Raises
        ------
        ConfigError
            If none of the recordings is in this part, or it is not clear which is.
        DataError
            If a recording is shorter than the one of the run.
        """
        chosen, missing = [], set(self.ids[part])
        for record in records:
            found = self.find(record.id, data_path)
            if len(found) > 1:
                raise ConfigError(
                    f"--split={part}: {record.id} of {data_path} may be any of {listed(found)} of "
                    f"{self.path}; give the data path that the model was trained on"
                )
            own = "".join(found)
            if own not in self.ids[part]:
                continue
            missing.remove(own)
            first, end = self.frames.get(part, {}).get(own, (0, record.frames))
            if not 0 <= first < end <= record.frames:
                raise DataError(
                    f"{data_path}: {record.id} has {record.frames} frames, but {self.path} says "
                    f"that frames {first} to {end - 1} of it are in the {part} part: it is not the "
                    "recording of that run"
                )
            chosen.append(part_of(record, first, end))
        if not chosen:
            raise ConfigError(
                f"--split={part}: none of the {len(records)} recordings of {data_path} "
                f"({listed([record.id for record in records])}) is among those of {self.path} "
                f"({listed(sorted(self.ids[part]))}); give the data path that the model was "
                "trained on, or leave out --split"
            )
        if missing:
            log.warning(
                "--split=%s: %d of %d recordings are not in %s: %s",
                part, len(missing), len(self.ids[part]), data_path, listed(sorted(missing)),
            )  # fmt: skip
        return chosen


def listed(names: list[str]) -> str:
    """Return names for a message, on one line; of many, the first ones."""
    more = f" … and {len(names) - LISTED} more" if len(names) > LISTED else ""
    shown = (shortened(name, 80) for name in names[:LISTED])
    return ", ".join(name if name.isprintable() else repr(name) for name in shown) + more
