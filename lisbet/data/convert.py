"""``betman convert_dataset``: what there is already, and what may be added to it."""

from pathlib import Path
from typing import Any

import zarr

from lisbet.config import Features
from lisbet.data.load import Source, find_sources
from lisbet.data.store import COLUMNS, LABELS, MARK, POSITION, Store, is_address, place_of
from lisbet.data.writer import Writer, seen
from lisbet.errors import DataError, OutputError
from lisbet.options import ConvertOptions
from lisbet.publish import require_writable
from lisbet.redact import redacted

OWN = {POSITION, LABELS, "behaviors", *Features.model_fields}
"""Arrays of a store, beside the table of its recordings."""
PREPARING = ("data_scale", "outside", "select_coords", "rename_coords", "fps")


def convert_dataset(options: ConvertOptions) -> None:
    """Convert a folder of recordings."""
    target, asked = options.target, _asked(options)
    sources = find_sources(options.dataset, options.data_filter)
    old = _existing(options)
    if options.overwrite:
        old = None
    if old is not None:
        sources = _lacking(old, sources, options, asked)
        if not sources:
            print(redacted(f"{place_of(target)} holds these recordings already"))
            return
    if not is_address(target):
        require_writable(target.parent)
    writer = Writer(options, asked, old)
    writer.convert(sources)
    place = redacted(place_of(target))
    print(f"{len(writer.rows)} recordings, {writer.frames} frames written to {place}")
    if options.storage == "float16":
        print(f"float16 moved coordinates by at most {writer.error:.2g} of the size of the video")
    for record_id in writer.left_out:
        print(f"left out: {record_id}")


def _lacking(
    old: Store, sources: list[Source], options: ConvertOptions, asked: dict[str, Any]
) -> list[Source]:
    """Return the recordings that a store lacks, if they may be added to it."""
    place = place_of(options.target)
    if old.group.attrs["preparation"] != asked:
        raise OutputError(_other_preparation(place, old.group.attrs["preparation"], asked))
    done = dict(zip(old.table["recording"].tolist(), old.table["source"].tolist(), strict=True))
    changed = [s.id for s in sources if s.id in done and done[s.id] != seen(s, options)]
    if changed:
        raise DataError(
            f"{', '.join(changed[:5])} changed since {place} was written; convert all of it again "
            "with --overwrite"
        )
    left_out = old.group.attrs["left_out"]
    lacking = [s for s in sources if s.id not in done and left_out.get(s.id) != seen(s, options)]
    if lacking and not options.append:
        raise OutputError(
            f"{place} exists already and lacks {len(lacking)} of these recordings, such as "
            f"{lacking[0].id}; add them with --append, or replace it with --overwrite"
        )
    return lacking


def _asked(options: ConvertOptions) -> dict[str, Any]:
    """Return what the contents of a store follow from, beside the recordings."""
    values = options.model_dump(mode="json")
    return {name: values[name] for name in (*PREPARING, "annot_format", "storage")}


def _existing(options: ConvertOptions) -> Store | None:
    """Return the store that is there already; anything else there is refused."""
    target = options.target
    if is_address(target):
        try:
            zarr.open_group(place_of(target), mode="r")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise OutputError(f"{place_of(target)} cannot be reached: {error}") from error
    elif not target.exists():
        return None
    try:
        return Store.open(target)
    except DataError as error:
        if _is_ours(target, options):
            return None
        raise OutputError(f"{error}; choose another place to write to") from error


def _is_ours(target: Path, options: ConvertOptions) -> bool:
    """Whether what cannot be read as a store may be written over."""
    try:
        group = zarr.open_group(place_of(target), mode="r", zarr_format=3)
    except Exception:
        return False
    if group.attrs.get("format") == MARK:
        return options.overwrite  # a damaged one
    # At an address nothing can be renamed: what lacks the mark was not finished.
    return is_address(target) and not dict(group.attrs) and set(group) <= {*OWN, *COLUMNS}


def _other_preparation(place: str, was: dict[str, Any], now: dict[str, Any]) -> str:
    lines = [f"  --{name}: was {was.get(name)!r}, is {now[name]!r}"
             for name in now if was.get(name) != now[name]]  # fmt: skip
    return (
        f"{place} was converted with other options; use those, another place, or "
        "--overwrite:\n" + "\n".join(lines)
    )
