"""Projects of BORIS (``.boris``): the events of all observations, as JSON.

They become the rows that BORIS exports as tabular events, and are read as these are.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lisbet.core.errors import DataError
from lisbet.core.json_types import JsonDict
from lisbet.data.files.limits import require_memory, require_regular
from lisbet.data.labels._labels import ALL, Choice, LabelReader, Labels, same_name
from lisbet.data.labels._observations import DURATIONS, OFFSET, rates_of, stem
from lisbet.data.labels.boris import labels_of_rows, rows_of

MEMORY_PER_BYTE = 20
COLUMNS = (
    "Observation id", "Source", "Media file name", DURATIONS, "FPS", OFFSET, "Subject", "Behavior",
    "Modifiers", "Behavior type", "Time",
)  # fmt: skip
PLAYER = "1"
"""The videos of this player make the time of an observation; others play at the same time."""


def _read(
    file: Path, frames: int, fps: float | None, start_s: float = 0.0, *, choice: Choice = ALL
) -> Labels:
    project = _project(file)
    _require_first_player(project, choice, file)
    rows = rows_of(_table(project, choice, file), choice, file)
    return labels_of_rows(rows, frames, fps, file, start_s=start_s, slack=choice.slack)


def _names(file: Path, *, choice: Choice = ALL) -> tuple[str, ...]:
    rows = rows_of(_table(_project(file), choice, file), choice, file)
    return tuple(rows.table["Behavior"].unique().tolist())


def _frame_rate(file: Path) -> float | None:
    """Return the frame rate that all observations state; None without one."""
    rates = rates_of(_table(_project(file), ALL, file))
    return rates[0] if len(rates) == 1 and 0 < rates[0] < float("inf") else None


def _project(file: Path) -> JsonDict:
    """Read a project.

    Raises
    ------
    DataError
        If it is none, or is cut off.
    """
    require_regular(file)
    require_memory(file.name, MEMORY_PER_BYTE * file.stat().st_size, "a project")
    try:
        project = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(
            f"{file.name} is no project of BORIS, or is cut off: it is no JSON ({error}). Save it "
            "in BORIS again"
        ) from error
    parts = ("observations", "behaviors_conf")
    if not isinstance(project, dict) or not all(
        isinstance(project.get(part), dict) for part in parts
    ):
        found = ", ".join(project) if isinstance(project, dict) else type(project).__name__
        raise DataError(
            f"{file.name} is no project of BORIS: expected {' and '.join(parts)} (found: {found})"
        )
    return project


def _table(project: JsonDict, choice: Choice, file: Path) -> pd.DataFrame:
    """Return the events of all observations as rows of a tabular export, all of them texts."""
    states = {
        str(behavior.get("code", "")).strip(): "state" in str(behavior.get("type", "")).lower()
        for behavior in project["behaviors_conf"].values()
    }
    rows, empty = list[dict[str, str]](), list[str]()
    for name, observation in project["observations"].items():
        try:
            own = _rows(name, observation, states, file)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise DataError(
                f"{file.name}: observation {name!r} is built otherwise than BORIS does it "
                f"({type(error).__name__}: {error}); save the project in BORIS again"
            ) from error
        rows += own
        if not own:
            videos = [stem(path) for path in _videos(observation, PLAYER)]
            empty += [*videos, name]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)
    if _is_among(choice, empty) and not _is_among(
        choice, [*map(stem, table["Media file name"].unique()), *table["Observation id"].unique()]
    ):
        return table.iloc[:0]  # it was observed, and nothing happened
    return table


def _is_among(choice: Choice, names: list[str]) -> bool:
    return any(same_name(own, name) for own in choice.recording for name in names)


def _videos(observation: JsonDict, player: str) -> list[str]:
    """Return the paths of the videos of a player, one after the other."""
    files = observation.get("file") or {}
    return [str(path) for path in files.get(player) or ()] if isinstance(files, dict) else []


def _rows(
    name: str, observation: JsonDict, states: dict[str, bool], file: Path
) -> list[dict[str, str]]:
    """Return the rows of an observation.

    BORIS stores one event for the start of a state and one for its stop, which are told apart by
    their order, for each subject, behaviour and modifiers.
    """
    if observation.get("type") == "IMAGES" and observation["events"]:
        raise DataError(
            f"{file.name}: observation {name!r} is of images, whose events have no times in a "
            "video; leave it out of the project"
        )
    videos = _videos(observation, PLAYER)
    info = observation.get("media_info") or {}
    lengths = [(info.get("length") or {}).get(video) for video in videos]
    rates = [(info.get("fps") or {}).get(video) for video in videos]
    offset_s = float(observation.get("time offset") or 0)
    shared = {
        "Observation id": name,
        "Source": f"player #1:{';'.join(videos)}" if videos else "Live",
        DURATIONS: ";".join(str(length or "NA") for length in lengths),
        "FPS": ";".join(str(rate or "NA") for rate in rates) or "NA",
        OFFSET: str(offset_s),
    }
    running, rows = set[tuple[str, ...]](), list[dict[str, str]]()
    events = sorted(observation["events"], key=lambda event: float(event[0]))
    for event in events:
        time_s, *texts = event[:4]
        subject, code, modifiers = (str(text or "").strip() for text in texts)
        if code not in states:
            raise DataError(
                f"{file.name}: observation {name!r} has an event of {code!r}, which is not in the "
                "ethogram of the project; add the behaviour in BORIS, or remove the event"
            )
        kind, key = "POINT", (subject, code, modifiers)
        if states[code]:
            kind = "STOP" if key in running else "START"
            running ^= {key}
        rows.append(
            shared
            | {
                "Media file name": _video_at(float(time_s) - offset_s, videos, lengths),
                "Subject": subject,
                "Behavior": code,
                "Modifiers": modifiers,
                "Behavior type": kind,
                "Time": repr(float(time_s)),
            }
        )
    return rows


def _video_at(time_s: float, videos: list[str], lengths: list[Any]) -> str:
    """Return the video that plays at a time of the observation; the last one after its end."""
    end_s = 0.0
    for video, length in zip(videos, lengths, strict=True):
        end_s += float(length or 0)
        if time_s < end_s or not length:
            return video
    return videos[-1] if videos else ""


def _require_first_player(project: JsonDict, choice: Choice, file: Path) -> None:
    """Refuse a video that plays together with those of the first player, shifted in time.

    Raises
    ------
    DataError
        If the recording is such a video.
    """
    for name, observation in project["observations"].items():
        offsets = (observation.get("media_info") or {}).get("offset") or {}
        for player in observation.get("file") or {} if isinstance(observation, dict) else ():
            videos = [stem(path) for path in _videos(observation, player)]
            if player == PLAYER or not _is_among(choice, videos) or not offsets.get(player):
                continue
            if not _is_among(choice, [stem(path) for path in _videos(observation, PLAYER)]):
                raise DataError(
                    f"{file.name}: observation {name!r} plays the recording's video {videos[0]!r} "
                    f"together with another one, {offsets[player]:g} s apart; expected that "
                    "of the first player, whose time counts. Export its events, corrected"
                )


def _recognises(file: Path) -> bool:
    if file.suffix.lower() != ".boris":
        return False
    try:
        with file.open("rb") as stream:
            return file.is_file() and stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(
                b"{"
            )
    except OSError:
        return False


READER = LabelReader(
    patterns=("*.boris",),
    read=_read,
    names=_names,
    frame_rate=_frame_rate,
    events=True,
    recognises=_recognises,
    chooses=True,
    title="a project of BORIS",
)
