"""``betman``: parse, check, then run.

Fire reads the command line and hands back a Job; only after everything was checked is it run.
"""

import errno
import inspect
import logging
import os
import signal
import sys
import time
import traceback
from typing import Any

import fire
import fire.decorators

from lisbet import __version__
from lisbet.cli import help as help_pages
from lisbet.cli import output
from lisbet.cli.argv import normalise
from lisbet.cli.commands import COMMANDS, Command, Job
from lisbet.core.errors import (
    ConfigError,
    LisbetError,
    OutputError,
    ReportedError,
    StoppedError,
    unknown,
)
from lisbet.core.redact import redacted
from lisbet.distributed import environment
from lisbet.distributed.cores import let_threads_sleep
from lisbet.options import LAUNCH_OPTIONS

HELP = {"-h", "--help", "help"}


def main(argv: list[str] | None = None) -> None:
    """Run betman.

    Parameters
    ----------
    argv : list of str, optional
        Words after the program's name; default: those of this process.

    Raises
    ------
    SystemExit
        With code 0 when done, 2 when the user can fix the input, 1 for a defect of betman,
        130 when interrupted, 141 when nobody reads the output of a command that is not training.
    """
    let_threads_sleep()
    with output.guarded():
        try:
            _main(sys.argv[1:] if argv is None else argv)
            sys.stdout.flush()
        except SystemExit as end:
            if environment.count() > 1 and end.code:
                # Torch may wait for its threads for ever while it is taken apart after a failure.
                output.make_optional()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(int(end.code))
            raise


def _main(words: list[str]) -> None:
    """Parse and run; every error ends in one message and an exit code."""
    details = any(word.startswith("-vv") for word in words)
    try:
        if (job := _parsed(words)) is not None:
            _set_up_logging(job.options.verbose)
            if job.command.name == "train_model":
                output.make_optional()
            job.run()
    except ReportedError as error:
        sys.exit(error.exit_code)
    except StoppedError as error:
        sys.stdout.flush()
        print(redacted(f"betman: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except LisbetError as error:
        _fail(str(error), error.exit_code, details)
    except OSError as error:
        _fail(str(_readable(error)), OutputError.exit_code, details)
    except KeyboardInterrupt:
        _fail("interrupted", 128 + signal.SIGINT, details)
    except Exception as error:
        _fail(
            f"this is a defect of betman, not of your data: {type(error).__name__}: {error}\n"
            "Please report it; run again with -vv for the details.",
            1,
            details,
        )


def _parsed(words: list[str]) -> Job | None:
    """Parse; an error is the same on all processes, and the first one prints it."""
    try:
        return parse(words)
    except LisbetError as error:
        if environment.rank():
            time.sleep(1)  # a launcher stops all when one ends: let the first print its message
            raise ReportedError(error.exit_code) from error
        raise


def parse(words: list[str]) -> Job | None:
    """Turn the words of a command line into a checked job; print help where it is asked for."""
    if not words or words[0] in HELP - {"help"} or words == ["help"]:
        print(help_pages.overview())
        return None
    if words[0] == "--version":
        print(f"betman {__version__}")
        return None
    name, *rest = [*words[1:2], "--help"] if words[0] == "help" else words
    name = name.replace("-", "_") if not name.startswith("-") else name
    if name not in COMMANDS:
        raise ConfigError(unknown("command", name, COMMANDS))
    command = COMMANDS[name]
    if HELP & set(rest):
        print(help_pages.page(command))
        return None
    environment.require_supported_system()
    words = normalise(rest, command)
    job = fire.Fire(
        _component(command, words),
        command=words,
        name=f"betman {name}",
        serialize=lambda _: None,  # a job is run here, not printed by Fire
    )
    assert isinstance(job, Job)
    return job


def _component(command: Command, words: list[str]) -> Any:
    """Make the function that Fire calls: every option is text, and the result is a Job."""

    def build(**given: str) -> Job:
        seen = [word for word in words if word[2:].partition("=")[0] not in LAUNCH_OPTIONS]
        return Job(command, command.check(given), seen)

    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in command.fields
        ]
    )
    return fire.decorators.SetParseFns(**dict.fromkeys(command.fields, str))(build)


class _Stderr(logging.Handler):
    """Writes to the current sys.stderr: above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        print(redacted(self.format(record)), file=sys.stderr, flush=True)


def _set_up_logging(verbose: int) -> None:
    logger = logging.getLogger("lisbet")
    handler = _Stderr()
    if not sys.stderr.isatty():  # a log that is read later, or next to those of other processes
        line = f"%(asctime)s [rank {environment.rank()}] %(message)s"
        handler.setFormatter(logging.Formatter(line, "%Y-%m-%d %H:%M:%S"))
    logger.handlers = [handler]
    logger.propagate = False
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    logger.setLevel(level if environment.rank() == 0 else logging.ERROR)


def _readable(error: OSError) -> OutputError:
    """Say which file could not be read or written, and what to do about it."""
    advice = {
        errno.ENOSPC: "free some space or choose another --output_path; older files are as before",
        errno.EDQUOT: "your quota is used up; free some space or choose another --output_path",
        errno.EACCES: "check the permissions, or choose another place",
        errno.EROFS: "this file system is read-only; choose another --output_path",
    }
    where = f"{error.filename}: " if error.filename else ""
    hint = advice.get(error.errno or 0)
    reason = error.strerror or str(error)
    return OutputError(f"{where}{reason}" + (f" ({hint})" if hint else ""))


def _fail(message: str, code: int, details: bool) -> None:
    if details:
        print(redacted(traceback.format_exc()), file=sys.stderr)
    sys.stdout.flush()
    print(redacted(f"betman: error: {message}"), file=sys.stderr)
    sys.exit(code)
