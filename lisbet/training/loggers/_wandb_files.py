"""What W&B has written of a run in this folder: its .wandb files.

They are framed as LevelDB's logs: blocks of 32 KiB of records with a checksum, a length and a
type; a long record is split into a first, middle and last part. The content is a protocol buffer
of the wandb package.
"""

import glob
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lisbet.core.json_types import JsonDict

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """Read the records of a .wandb file up to where a kill cut it off."""
    from wandb.proto import wandb_internal_pb2

    for content in _contents(path.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(content)
        yield record


def history(path: Path) -> list[JsonDict]:
    """Return the rows of a .wandb file, with their ``_step``."""
    return [
        {
            "/".join(item.nested_key) or item.key: json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def files_of(folder: Path, run: str, *, offline: bool | None = None) -> list[Path]:
    """Return the .wandb files of a W&B run in a folder, oldest first."""
    heads = {None: ("offline-run-", "run-"), True: ("offline-run-",), False: ("run-",)}[offline]
    name = glob.escape(run)
    found = [
        path for head in heads for path in folder.glob(f"wandb/{head}*-{name}*/run-{name}.wandb")
    ]
    return sorted(found, key=lambda path: path.parent.name.removeprefix("offline-"))


def last_step(folder: Path, run: str) -> int:
    """Return the last step that the files of a W&B run hold, or -1."""
    steps = [
        row["_step"] for path in files_of(folder, run) for row in history(path) if "_step" in row
    ]
    return max(steps, default=-1)


def not_synced(folder: Path, run: str) -> list[Path]:
    """Return the offline files of a W&B run that its server has not got."""
    files = files_of(folder, run, offline=True)
    return [path for path in files if not path.with_name(f"{path.name}.synced").exists()]


def _contents(data: bytes) -> Iterator[bytes]:
    position, begun = FILE_HEADER, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:  # the rest of a block, filled with zeros
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        content = data[position + HEADER : position + HEADER + length]
        if kind == 0 or len(content) < length:
            return
        position += HEADER + length
        if kind in (FULL, FIRST):
            begun = b""
        begun += content
        if kind in (FULL, LAST):
            yield begun
