"""The options of what looks at runs and at this machine."""

import warnings
from pathlib import Path

from lisbet.options._base import Options, option, positional

with warnings.catch_warnings():
    # Pydantic has a deprecated method of the name that --json must have.
    warnings.filterwarnings("ignore", message='Field name "json"')

    class RunsOptions(Options):
        """List runs: which are running, which ended, and which can be resumed.

        Examples
        --------
        betman runs
        betman runs --json scratch/models
        """

        models_path: Path = positional("folder of runs, or one run", default=Path("models"))
        json: bool = option(
            False, "print JSON instead of a table", affects="nothing", group="output"
        )  # type: ignore[assignment]


class DoctorOptions(Options):
    """Check this machine: versions, devices, communication, disk, and say what to do about it.

    The exit code is 1 if something would keep training from working.

    Examples
    --------
    betman doctor
    """

    output_path: Path = option(
        Path("."),
        "folder whose disk is checked: where models/ will be written",
        affects="nothing",
        group="output",
    )
