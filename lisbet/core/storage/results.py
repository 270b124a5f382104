"""Checks that commands make before long work: may their results be written where they go?"""

import os
from collections.abc import Sequence
from pathlib import Path

from lisbet.core.errors import OutputError
from lisbet.core.storage.files import require_file_target
from lisbet.core.storage.folders import contents, require_folder_target
from lisbet.core.storage.write_log import WriteLog

SHOWN = 3
"""Files that are named in a message, of more that exist."""


def require_result_files(paths: Sequence[Path], *, root: Path, overwrite: bool) -> None:
    """Refuse to write files if any of them exists, or with `overwrite`, if any is not ours.

    Parameters
    ----------
    paths : sequence of Path
        Files that are going to be written with `files.write_file`.
    root : Path
        The folder whose log notes them.
    overwrite : bool
        Whether files that this program wrote are replaced.

    Raises
    ------
    OutputError
        Naming the first ones that exist, or the first one that cannot be written.
    """
    notes = WriteLog(root)
    there = [path for path in paths if os.path.lexists(path)]
    if there and not overwrite and all(path.is_file() and not path.is_symlink() for path in there):
        names = ", ".join(map(str, there[:SHOWN]))
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        foreign = [path for path in there if not notes.owns(path)]
        advice = (
            f"{foreign[0]} was not written by betman, or was changed since. Choose another "
            "--output_path, or move the files away"
            if foreign
            else "replace them with --overwrite, or choose another --output_path"
        )
        raise OutputError(f"results exist already: {names}{more}; {advice}")
    for path in paths:
        require_file_target(path, root=root, overwrite=overwrite, notes=notes)


def require_result_folder(path: Path, kind: str, *, overwrite: bool) -> None:
    """Refuse to write a folder over one that exists, or with `overwrite`, that is something else.

    Parameters
    ----------
    path : Path
        The folder that is going to be written with `folders.write_folder`.
    kind : str
        What it is going to be.
    overwrite : bool
        Whether a folder of this kind that this program wrote is replaced.

    Raises
    ------
    OutputError
        Saying what is there.
    """
    if not overwrite and path.is_dir() and not path.is_symlink():
        found = WriteLog(path).kind
        what = f"a {found} that betman wrote" if found else contents(path)
        advice = "replace it with --overwrite, or " if found == kind else ""
        raise OutputError(
            f"{path} exists already: it is {what}; {advice}move it away, or choose another place"
        )
    require_folder_target(path, frozenset({kind}) if overwrite else frozenset())


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder, or is in it, also through links and under another name."""
    real, real_folder = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if real.is_relative_to(real_folder):
        return True
    return real_folder.exists() and any(
        up.exists() and up.samefile(real_folder) for up in (real, *real.parents)
    )
