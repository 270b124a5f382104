"""What ``betman runs --json`` says of a run: its fields, and its states.

docs/runs.md has both as tables; a test compares them.
"""

from typing import Literal, NamedTuple

from pydantic import ConfigDict, Field

from lisbet.core.config import Config


class State(NamedTuple):
    """A state of a run: its colour in the table, what it means, and what to do."""

    colour: str
    meaning: str
    action: str


RESUME = "start the same command with --resume"
STATES = {
    "running": State(
        "green",
        "its process is there; on another machine: status.json was updated recently",
        "wait",
    ),
    "finished": State("blue", "all epochs are trained", "use the model"),
    "stopped": State(
        "yellow",
        "a signal or --max_time ended it, after it was saved",
        RESUME,
    ),
    "failed": State(
        "red",
        "an error ended it, which detail has",
        f"remove the cause, then {RESUME}",
    ),
    "killed": State(
        "red",
        "its process is gone without a word: SIGKILL, often for want of memory, or the machine "
        "was restarted",
        f"look for the cause in the system's log, then {RESUME}",
    ),
    "silent": State(
        "magenta",
        "it ran on another machine, and has not updated status.json for 10 minutes and for 5 "
        "times its usual pause",
        f"look for its process on host, or its job; if it is gone, {RESUME}",
    ),
    "unknown": State(
        "dim",
        "status.json is missing or cannot be read: an earlier release wrote the run, or it has "
        "not begun",
        "look into the folder",
    ),
}
StateName = Literal["running", "finished", "stopped", "failed", "killed", "silent", "unknown"]
assert set(StateName.__args__) == set(STATES)  # type: ignore[attr-defined]


class RunRecord(Config):
    """One run, as an element of the JSON list; a field is null where nothing is known of it."""

    model_config = ConfigDict(ser_json_inf_nan="null")  # JSON has no word for NaN

    run_id: str = Field(description="name of the run, and of its folder")
    path: str = Field(description="its folder, as a path from the working directory")
    state: StateName = Field(description="see the table of states")
    detail: str = Field("", description="first line of the message that ended it; else empty")
    action: str = Field(description="what to do, as in the table of states")
    resumable: bool = Field(description="whether --resume has a checkpoint to continue from")
    epoch: int | None = Field(None, description="epochs that are finished")
    epochs: int | None = Field(None, description="epochs that it was asked to train")
    step: int | None = Field(None, description="optimizer steps that are done")
    steps_per_epoch: int | None = Field(None, description="optimizer steps of an epoch")
    checkpoint_step: int | None = Field(
        None, description="step of the newest checkpoint: where --resume continues"
    )
    scores: dict[str, float | None] = Field(
        {}, description="line of the history of the last finished epoch, by column"
    )
    started: str | None = Field(
        None, description="time of the first start, ISO 8601 with the offset from UTC"
    )
    updated: str | None = Field(None, description="time of the last update of status.json")
    seconds: float | None = Field(
        None, description="time that it has run, over all starts, in seconds"
    )
    starts: int | None = Field(None, description="how often it was started or resumed")
    host: str | None = Field(None, description="machine of its first process")
    pid: int | None = Field(None, description="number of its first process there")
    processes: int | None = Field(None, description="number of its processes, on all machines")
    slurm_job: str | None = Field(None, description="number of its SLURM job; null outside")
