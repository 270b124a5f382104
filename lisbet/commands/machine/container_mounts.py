"""Which paths a process in an Apptainer container finds: links may lead out of its mounts."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MOST_LINKS = 40
"""Links that Linux follows in one path."""
MOST_ENTRIES = 20_000
"""Entries of a folder that are searched for links."""
BIND_VARIABLES = (
    "APPTAINER_BIND",
    "APPTAINER_BINDPATH",
    "SINGULARITY_BIND",
    "SINGULARITY_BINDPATH",
)


@dataclass(frozen=True)
class Mount:
    """A folder of the host, and where the container has it.

    Parameters
    ----------
    source, target : Path
        Absolute paths on the host and in the container.
    """

    source: Path
    target: Path


def mounts_of(bind: str | None, environ: Mapping[str, str]) -> list[Mount]:
    """Return what the batch script and Apptainer mount.

    The script mounts the working directory and --bind; Apptainer adds the home, /tmp and /var/tmp,
    and what its variables name.

    Parameters
    ----------
    bind : str, optional
        As for ``apptainer exec --bind``: ``SOURCE[:TARGET[:OPTIONS]]``, comma separated.
    environ : mapping of str to str
        The environment, which ``sbatch`` hands to the job.
    """
    words = [os.getcwd(), environ.get("PWD", ""), environ.get("HOME", ""), "/tmp", "/var/tmp"]
    for text in (bind or "", *(environ.get(name, "") for name in BIND_VARIABLES)):
        words += text.split(",")
    found = []
    for word in words:
        source, _, rest = word.partition(":")
        target = rest.partition(":")[0] or source
        if source:
            pair = (Path(os.path.abspath(path)) for path in (source, target))
            found.append(Mount(*pair))
    return found


def hidden(path: Path, mounts: list[Mount]) -> Path | None:
    """Return the place that a path leads to and the container does not have, or None.

    The path is followed as the system does in the container, link by link: a link to an absolute
    path begins again at the root of the container.
    """
    todo = Path(os.path.abspath(path))
    for _ in range(MOST_LINKS):
        mount = _mount_of(todo, mounts)
        if mount is None:
            return todo
        link = _first_link(todo, mount)
        if link is None:
            return None
        place, rest = link
        # A link's target is relative to the folder of the link, as the container sees it.
        on_host = mount.source / place.relative_to(mount.target)
        todo = Path(os.path.normpath(place.parent / os.readlink(on_host) / rest))
    return todo


def _mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """Return the innermost mount that contains a path of the container."""
    around = [mount for mount in mounts if path.is_relative_to(mount.target)]
    return max(around, key=lambda mount: len(mount.target.parts), default=None)


def _first_link(path: Path, mount: Mount) -> tuple[Path, Path] | None:
    """Return the first link below a mount on the way to a path, and the rest of the way."""
    inside = path.relative_to(mount.target).parts
    for number in range(1, len(inside) + 1):
        if (mount.source / Path(*inside[:number])).is_symlink():
            return mount.target / Path(*inside[:number]), Path(*inside[number:])
    return None


def links_below(folder: Path) -> Iterator[Path]:
    """Yield the links in a folder and its subfolders; a very large one is not read to its end."""
    seen = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            seen += 1
            if seen > MOST_ENTRIES:
                return
            if (path := Path(place, name)).is_symlink():
                yield path
