"""Standard output and error that may be closed while a command runs."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

CLOSED = {errno.EPIPE, errno.EIO, errno.EBADF}
"""Errors of a pipe without reader, a terminal that is gone, and a closed file."""
BROKEN_PIPE = 141
"""128 + SIGPIPE, as a shell reports a program that SIGPIPE ended."""


class GuardedStream:
    """A text stream whose file may be closed.

    What is written after that goes to the null device.

    Parameters
    ----------
    stream : TextIO
        Where to write.
    required : bool
        Whether the command ends when its output cannot be written.

    Raises
    ------
    SystemExit
        On writing, with code 141: the stream is required, and nobody reads its pipe any more.
    OSError
        On writing, for every other error of a required stream.
    """

    def __init__(self, stream: TextIO, *, required: bool) -> None:
        self.stream, self.required = stream, required

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write text; return its length."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._failed(error)
        except ValueError:
            if not self.stream.closed:
                raise  # a character that the encoding lacks
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            if not self.stream.closed:
                self.stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if error.errno in CLOSED:
            with contextlib.suppress(OSError, ValueError):  # no file, as in a test
                _use_null_device(self.stream.fileno())
        if not self.required:
            return
        if error.errno == errno.EPIPE:
            raise SystemExit(BROKEN_PIPE) from error
        raise error


@contextmanager
def guarded() -> Iterator[None]:
    """Guard standard output, which is required until `make_optional`, and standard error.

    A standard file that is closed at the start is opened on the null device: the next file that is
    opened would else get its number, and receive what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nothing:
        for name, stream in zip(("stdout", "stderr"), before, strict=True):
            required = name == "stdout"
            wrapped = GuardedStream(stream or nothing, required=required)
            setattr(sys, name, cast(TextIO, wrapped))
        try:
            yield
        finally:
            make_optional()  # the exit code is decided; what is left must not change it
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def make_optional() -> None:
    """Let the command continue when its standard output is closed."""
    if isinstance(sys.stdout, GuardedStream):
        sys.stdout.required = False


def _use_null_device(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
