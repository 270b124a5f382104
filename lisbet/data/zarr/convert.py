"""``betman convert_dataset``: which recordings the target has, and which may be added."""

from lisbet.core.address import is_address, place_of
from lisbet.core.errors import DataError, OutputError, counted
from lisbet.core.json_types import JsonDict
from lisbet.core.redact import redacted
from lisbet.data.files.sources import Source, find_sources
from lisbet.data.files.versions import FileChoice
from lisbet.data.readers import dataset_reader
from lisbet.data.zarr.destination import Destination, LocalDestination
from lisbet.data.zarr.remote import RemoteDestination, request_of
from lisbet.data.zarr.store import MARK, Store
from lisbet.data.zarr.target import require_local_target
from lisbet.data.zarr.writer import Writer, seen
from lisbet.options import ConvertOptions, affecting


def convert_dataset(options: ConvertOptions) -> None:
    """Convert a folder of recordings."""
    target, asked = options.target, _asked(options)
    reader = dataset_reader(options.dataset)
    if reader is not None and not reader.prepared:
        raise DataError(
            f"{options.data_path} is a dataset in one file; expected a folder of recordings. Train "
            "on it as it is; for CalMS21, betman fetch_dataset writes such a folder"
        )
    sources = find_sources(options.dataset, options.filters, FileChoice.of(options))
    destination: Destination
    if is_address(target):
        destination = RemoteDestination(target)
    else:
        require_local_target(target, options.data_path, sources)
        destination = LocalDestination(target)
    request: JsonDict = {
        "preparation": asked, "sources": {s.id: seen(s, options) for s in sources},
        "added_to": None,
    }  # fmt: skip
    with destination.held() as done:
        if done == request_of(request):
            print(redacted(f"{counted(len(sources), 'recording')} written to {destination.place}"))
            return
        old = _existing(options, destination)
        if old is not None:
            sources = _lacking(old, sources, options, asked)
            if not sources:
                print(redacted(f"{place_of(target)} holds these recordings already"))
                return
            request["added_to"] = old.group.attrs["digest"]
        request["sources"] = {s.id: request["sources"][s.id] for s in sources}
        writer = Writer(options, asked, old, destination)
        writer.convert(sources, request)
    place = redacted(place_of(target))
    print(f"{counted(len(writer.rows), 'recording')}, {writer.frames} frames written to {place}")
    if options.storage == "float16":
        print(f"float16 moved coordinates by at most {writer.error:.2g} of the size of the video")
    for record_id in writer.left_out:
        print(f"left out: {record_id}")


def _lacking(
    old: Store, sources: list[Source], options: ConvertOptions, asked: JsonDict
) -> list[Source]:
    """Return the recordings that a store lacks, if they may be added to it."""
    place = place_of(options.target)
    before = {name: ConvertOptions.model_fields[name].default for name in asked}
    before |= old.group.attrs["preparation"]  # stores of earlier releases lack later options
    if before != asked:
        raise OutputError(_other_preparation(place, before, asked))
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


def _asked(options: ConvertOptions) -> JsonDict:
    """Return the options that the contents of a store depend on, besides the recordings."""
    return options.model_dump(mode="json", include={*affecting(ConvertOptions, "data")})


def _existing(options: ConvertOptions, destination: Destination) -> Store | None:
    """Return the store that is there already, if it is not to be replaced."""
    attributes = destination.store_attributes()
    if attributes is None:
        return None
    if attributes.get("format") != MARK:
        raise OutputError(
            f"{destination.place} is not a store that betman convert_dataset wrote; choose another "
            "place to write to"
        )
    if options.overwrite:
        return None
    try:
        return Store.open(options.target)
    except DataError as error:
        raise OutputError(f"{error}. If it is damaged, replace it with --overwrite") from error


def _other_preparation(place: str, was: JsonDict, now: JsonDict) -> str:
    lines = [f"  --{name}: was {was.get(name)!r}, is {now.get(name)!r}"
             for name in was | now if was.get(name) != now.get(name)]  # fmt: skip
    return (
        f"{place} was converted with other options; use those, another place, or "
        "--overwrite:\n" + "\n".join(lines)
    )
