"""Look into a file without reading it: its first bytes, lines, or the names in an HDF5 file."""

from functools import cached_property
from itertools import islice
from pathlib import Path

from lisbet.data.files.limits import LINE_BYTES
from lisbet.data.files.text_tables import decode, lines_of

START_BYTES = 4096
HDF5 = b"\x89HDF\r\n\x1a\n"
CLASSIC_NETCDF = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
HEAD_LINES = 10
"""More than a table has lines of names, and its first frames."""


class Peek:
    """The beginning of a file; everything is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def start(self) -> bytes:
        """The first bytes; none if it is no regular file, or cannot be read."""
        try:
            if not self.path.is_file():
                return b""
            with self.path.open("rb") as stream:
                return stream.read(START_BYTES)
        except OSError:
            return b""

    @property
    def is_hdf5(self) -> bool:
        """Whether it is an HDF5 file."""
        return self.start.startswith(HDF5)

    @property
    def is_classic_netcdf(self) -> bool:
        """Whether it is a NetCDF file of a classic format, which is not HDF5."""
        return self.start.startswith(CLASSIC_NETCDF)

    @cached_property
    def hdf5_root(self) -> dict[str, str]:
        """What is at the root of an HDF5 file: "dataset", "group", or how pandas calls a table."""
        import h5py

        found = {}
        try:
            with h5py.File(self.path, "r") as root:
                for name in root:
                    if not isinstance(root.get(name, getlink=True), h5py.HardLink):
                        continue
                    item = root[name]
                    kind = "group" if isinstance(item, h5py.Group) else "dataset"
                    pandas = item.attrs.get("pandas_type", kind)
                    found[name] = pandas.decode() if isinstance(pandas, bytes) else str(pandas)
        except Exception:  # a damaged file makes the library raise almost anything
            return {}
        return found

    @cached_property
    def lines(self) -> list[str]:
        """The first lines of a text file that have something in them."""
        return head_lines(self.path)


def head_lines(path: Path) -> list[str]:
    """Return the first lines of a text file; one that is too long is cut off."""
    with path.open("rb") as stream:
        raw = b"".join(stream.readline(LINE_BYTES) for _ in range(HEAD_LINES))
    lines = lines_of(decode(raw))
    return list(islice((line for line in lines if line.strip()), HEAD_LINES))
