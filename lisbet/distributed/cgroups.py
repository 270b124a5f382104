"""The control groups that this process is in: where their limits are written."""

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Where the control groups are mounted: version 2, or a folder for each controller of version 1."""
OWN_CGROUP = Path("/proc/self/cgroup")
"""Says in which control groups this process is."""


def own_groups(controller: str, cgroups: Path, own_cgroup: Path) -> Iterator[tuple[Path, int]]:
    """Yield the groups of this process and all their parents, whose limits hold as well.

    Parameters
    ----------
    controller : str
        "memory" or "cpu".
    cgroups, own_cgroup : Path
        Where the control groups are mounted, and the file that names those of this process.

    Yields
    ------
    folder : Path
    version : int
        1 or 2, which write limits to other files.
    """
    for line in text_of(own_cgroup).splitlines():
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, version = cgroups, 2
        elif controller in controllers.split(","):
            root, version = cgroups / controller, 1
        else:
            continue
        # In a container, the path may be that of the host, of which only the root is visible.
        group = root.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        if not group.is_dir():
            group = root
        for folder in (group, *group.parents):
            yield folder, version
            if folder == root:
                break


def text_of(path: Path) -> str:
    """Return what a file holds, and nothing if it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
