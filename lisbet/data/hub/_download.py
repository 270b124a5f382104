"""Bring files that are known by name and checksum, from the internet, a mirror or a disk."""

import hashlib
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lisbet.core.console import stderr_console
from lisbet.core.errors import DataError, OutputError
from lisbet.core.storage.files import claim, remove_file
from lisbet.core.storage.write_log import WriteLog

log = logging.getLogger(__name__)

MIRROR = "LISBET_MIRROR"
"""Environment variable: address under which all files lie, in place of their own."""
ATTEMPTS = 5
FIRST_WAIT_S = 1.0
TIMEOUT_S = 30.0
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a dataset.

    Parameters
    ----------
    name : str
        Its name, wherever it is.
    url : str
        Where its authors publish it.
    md5 : str
        Checksum that its authors state.
    """

    name: str
    url: str
    md5: str


def bring(file: RemoteFile, folder: Path, source: str | None) -> Path:
    """Return the path of a file whose checksum is right, downloading it if need be.

    Parameters
    ----------
    file : RemoteFile
        Which one.
    folder : Path
        Where downloads are kept until they are no longer needed.
    source : str, optional
        Where to take it from: the file, a folder with it, or an address of one or the other.

    Raises
    ------
    DataError
        If it cannot be had or its checksum is wrong.
    """
    if source is not None and "://" not in source:
        local = Path(source) / file.name if Path(source).is_dir() else Path(source)
        if not local.is_file():
            raise DataError(f"--source={source}: no file {local}; expected {file.name}")
        if (found := md5_of(local)) != file.md5:
            raise DataError(_mismatch(local, found, file))
        return local
    target = folder / file.name
    if target.is_file() and md5_of(target) == file.md5:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    WriteLog(folder).begin("downloads")
    claim(target, folder)
    url, resuming = address(file, source), target.exists()
    _download(url, target)
    if resuming and md5_of(target) != file.md5:  # it was the beginning of another version
        remove_file(target, folder)
        _download(url, target)
    if (found := md5_of(target)) != file.md5:
        remove_file(target, folder)
        raise DataError(_mismatch(target, found, file))
    return target


def remove_download(file: RemoteFile, folder: Path) -> None:
    """Remove a file that `bring` downloaded; a file of the user is kept."""
    remove_file(folder / file.name, folder)


def address(file: RemoteFile, source: str | None) -> str:
    """Return where to download a file from: `source`, else a mirror, else its own address."""
    base = source or os.environ.get(MIRROR)
    if base is None:
        return file.url
    return base if base.rstrip("/").endswith(file.name) else f"{base.rstrip('/')}/{file.name}"


def md5_of(path: Path) -> str:
    """Return the MD5 sum of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what would fill the disk.

    Raises
    ------
    OutputError
        Naming the folder, what is needed and what is free.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{what} takes about {needed / 2**30:.1f} GiB, but {folder} has {free / 2**30:.1f} GiB "
            "free; make room or choose another --download_path"
        )


def _download(url: str, target: Path) -> None:
    """Download a file, resuming where an earlier attempt, of this call or before, was cut off."""
    for attempt in range(ATTEMPTS):
        try:
            _stream(url, target)
            return
        except requests.HTTPError as error:
            status = error.response.status_code
            if status < 500 and status != 429:
                raise DataError(f"{url}: the server answers {status}; see --source") from error
            reason = f"the server answers {status}"
        except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
            reason = f"{type(error).__name__}"
            log.debug("%s", error, exc_info=True)
        wait = FIRST_WAIT_S * 2**attempt
        if attempt + 1 < ATTEMPTS:
            log.warning("%s: %s; trying again in %.0f s", url, reason, wait)
            time.sleep(wait)
    raise DataError(
        f"{url} cannot be downloaded ({reason}, {ATTEMPTS} attempts). Where there is no internet: "
        f"download {target.name} elsewhere, copy it here, and add --source=PATH"
    )


def _stream(url: str, part: Path) -> None:
    """Append to a file that is noted in its folder's log what is missing of it."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if have and answer.status_code in (200, 416):  # no resuming here, or nothing is missing
            remove_file(part, part.parent)
            if answer.status_code == 416:
                raise ConnectionError("the partial file does not fit; starting again")
            have = 0
        answer.raise_for_status()
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if length:
            require_space(part.parent, int(length), url)
        with part.open("ab") as stream, _bar(part.name) as bar:
            task = bar.add_task("", total=total, completed=have)
            # read1 hands on what has come, so that nothing of a connection that is cut is lost.
            while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
                stream.write(chunk)
                bar.advance(task, len(chunk))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"{part.stat().st_size} of {total} bytes came")


def _bar(name: str) -> Progress:
    console = stderr_console()
    return Progress(
        TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


def _mismatch(path: Path, found: str, file: RemoteFile) -> str:
    return (
        f"{path} has the MD5 sum {found}, but {file.name} must have {file.md5}: it is damaged or "
        "another version, and is not used; bring it again"
    )
