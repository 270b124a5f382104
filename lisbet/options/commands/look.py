"""The options of what looks at runs and at this machine."""

import warnings
from pathlib import Path
from typing import Self

from pydantic import model_validator

from lisbet.core.errors import ConfigError
from lisbet.options._base import LaunchOptions, Options, option, positional

with warnings.catch_warnings():
    # Pydantic has a deprecated method of the name that --json must have.
    warnings.filterwarnings("ignore", message='Field name "json"')

    class RunsOptions(Options):
        """List runs: which are running, which ended, and which can be resumed.

        docs/runs.md explains the states, and the fields of --json.

        Examples
        --------
        betman runs
        betman runs --json scratch/models
        """

        models_path: Path = positional("folder of runs, or one run", default=Path("models"))
        json: bool = option(
            False, "print JSON instead of a table", affects="nothing", group="output"
        )  # type: ignore[assignment]


class DoctorOptions(LaunchOptions):
    """Check this machine: versions, devices, communication, disk, and say what to do about it.

    The exit code is 1 if something would keep training from working. With --nodes, the processes
    of a job find each other and add up numbers, as training does with gradients, for less than a
    minute; it prints the interface and the bandwidth, or what to set. In an allocation of SLURM it
    starts a process on each node.

    Examples
    --------
    betman doctor
    betman doctor --nodes --launch=ddp --num_processes=2
    """

    nodes: bool = option(
        False,
        "test communication between the processes and nodes of a job, instead of this machine",
        affects="nothing",
        group="devices",
    )

    output_path: Path = option(
        Path("."),
        "folder whose disk is checked: where models/ will be written",
        affects="nothing",
        group="output",
    )

    @model_validator(mode="after")
    def _several_processes_test_nodes(self) -> Self:
        if self.launch is not None and not self.nodes:
            raise ConfigError("--launch needs --nodes here: the other checks are of one machine")
        return self
