"""Check HDF5 files from others before a library reads them: links, sizes and compression."""

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisbet.core.errors import DataError
from lisbet.data.files.limits import bytes_of, require_memory, shape_text
from lisbet.distributed.memory_policy import file_limit

if TYPE_CHECKING:
    import h5py

OBJECTS = 10_000
"""Most groups and datasets of a file; recordings have about ten."""
DEFLATE, DEFLATE_RATIO = 1, 1032
"""Number of the filter in HDF5, and the most that one byte can become."""
REORDERING = {2, 3, 5, 6}
"""Filters that do not compress: shuffle, checksum, nbit, scaleoffset (of a stated size)."""


def check_hdf5(file: Path, *, everywhere: bool = False) -> None:
    """Check that all values are in the file itself, and that those at its root fit in memory.

    Parameters
    ----------
    file : Path
        The file.
    everywhere : bool
        Whether the values in groups are read, too, and must fit in memory.

    Raises
    ------
    DataError
        If values lie in other files, are too large, or are compressed to exhaust memory.
    OSError
        If it is no HDF5 file.
    """
    import h5py  # takes a tenth of a second to import

    with h5py.File(file, "r") as root:
        found = _objects(root, file.name)
        for item in found:
            if isinstance(item, h5py.Dataset):
                _check_storage(item, file.name)
        at_root = [
            (name, root[name]) for name in root if root.get(name, getclass=True) is h5py.Dataset
        ]
        if everywhere:
            at_root = [(item.name, item) for item in found if isinstance(item, h5py.Dataset)]
        needed, largest = 0, ("", ())
        for name, item in at_root:
            own = bytes_of(item.shape or (), item.dtype.kind)
            if own > bytes_of(largest[1], "f"):
                largest = (name, item.shape)
            needed += own
        require_memory(file.name, needed, shape_text(*largest))
        for name, item in at_root:
            _check_chunks(item, name, file.name)


def _objects(root: "h5py.Group", name: str) -> list[Any]:
    """Return all groups and datasets; external links and loops of groups are refused."""
    import h5py

    found: list[Any] = []
    seen: set[int] = {h5py.h5o.get_info(root.id).addr}
    waiting = [root]
    while waiting:
        group = waiting.pop()
        for key in group:
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise DataError(
                    f"{name}: {key!r} is a link to another file, {link.filename!r}; expected all "
                    "values in the file itself. Copy them into it"
                )
            if isinstance(link, h5py.SoftLink):
                continue  # to a place in this file, which is visited on its own
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if isinstance(item, h5py.Group):
                if address in seen:
                    raise DataError(
                        f"{name}: the group {key!r} has several names; expected a tree of groups. "
                        "Export the file again"
                    )
                waiting.append(item)
            seen.add(address)
            found.append(item)
            if len(found) > OBJECTS:
                raise DataError(
                    f"{name} holds more than {OBJECTS} groups and datasets; expected about ten. "
                    "Export the file again"
                )
    return found


def _check_storage(dataset: "h5py.Dataset", name: str) -> None:
    """Refuse values that lie in other files."""
    if dataset.external:
        raise DataError(
            f"{name}: the values of {dataset.name!r} lie in another file, "
            f"{dataset.external[0][0]!r}; expected all values in the file itself. Copy them into it"
        )
    if dataset.is_virtual:
        source = dataset.virtual_sources()[0].file_name
        raise DataError(
            f"{name}: {dataset.name!r} is a virtual dataset of values in {source!r}; expected all "
            "values in the file itself. Copy them into it"
        )


def _check_chunks(dataset: "h5py.Dataset", key: str, name: str) -> None:
    """Refuse chunks that become larger than they are declared to be when they are decompressed."""
    if dataset.chunks is None or dataset.size == 0:
        return
    properties = dataset.id.get_create_plist()
    count = properties.get_nfilters()
    filters = [properties.get_filter(number)[0] for number in range(count)]
    compressing = [number for number in filters if number not in REORDERING]
    if len(compressing) > 1:
        raise DataError(
            f"{name}: {key!r} is compressed {len(compressing)} times over; expected once at most. "
            "Export the file again"
        )
    limit, itemsize = file_limit(), dataset.dtype.itemsize
    declared = itemsize
    for side in dataset.chunks:
        declared *= side
    require_memory(name, declared, shape_text(f"chunk of {key}", dataset.chunks))
    if DEFLATE not in compressing:
        return
    suspicious: list[tuple[int, ...]] = []

    def visit(chunk: Any) -> None:
        if chunk.size * DEFLATE_RATIO > max(declared, limit) and not chunk.filter_mask:
            suspicious.append(chunk.chunk_offset)

    dataset.id.chunk_iter(visit)
    for offset in suspicious:
        _, stored = dataset.id.read_direct_chunk(offset)
        decompressor, size = zlib.decompressobj(), 0
        while stored and size <= declared + 4:  # a checksum may come before it is compressed
            size += len(decompressor.decompress(stored, 2**24))
            stored = decompressor.unconsumed_tail
        if size > declared + 4:
            raise DataError(
                f"{name}: a chunk of {key!r} decompresses to more than the {declared} bytes that "
                "its shape states; the file is damaged. Export it again"
            )
