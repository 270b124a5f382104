"""The options of a batch script for SLURM."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, model_validator

from lisbet.core.config import WORDS_AS_TEXT
from lisbet.core.errors import ConfigError
from lisbet.core.option_text import split_words
from lisbet.options._base import option
from lisbet.options._train import TrainingOptions
from lisbet.options.commands.sbatch import (
    GresText,
    MailAddress,
    Name,
    SbatchOptions,
    SbatchText,
    ShellLines,
    Time,
    Word,
)

Seeds = Annotated[
    tuple[int, ...],
    BeforeValidator(lambda raw: () if raw == "" else split_words(raw)),
    WORDS_AS_TEXT,
]


class SlurmScriptOptions(TrainingOptions):
    """Print a batch script for SLURM that trains a model.

    All options of train_model are checked as train_model would, also on the recordings where they
    are here. The job saves a checkpoint before its time limit, is requeued, and resumes.

    Examples
    --------
    betman slurm_script --nodes=2 --gpus_per_node=4 --time=12:00:00 --container=lisbet.sif \
--run_id=mice --epochs=50 --batch_size=1024 datasets/mice > mice.sbatch && sbatch mice.sbatch

    betman slurm_script --gres=gpu:a100:2 --constraint=nvlink --mail=me@lab.org \
--setup='module load apptainer' --container=lisbet.sif --run_id=mice datasets/mice > mice.sbatch

    betman slurm_script --seeds=1,2,3 --venv=.venv --run_id=mice datasets/mice > mice.sbatch
    """

    nodes: int = option(1, "number of nodes", affects="nothing", group="job", ge=1)
    gpus_per_node: int = option(
        1, "GPUs per node; 0 trains on CPUs", affects="nothing", group="job", ge=0
    )
    gres: GresText | None = option(
        None,
        "resources of each node in the words of SLURM, such as gpu:a100:4, where --gpus_per_node "
        "is not enough",
        affects="nothing",
        group="job",
    )
    processes_per_node: int | None = option(
        None,
        "processes per node; default: one per GPU, or one",
        affects="nothing",
        group="job",
        ge=1,
    )
    cpus_per_task: int = option(8, "CPU cores per node", affects="nothing", group="job", ge=1)
    mem: Word | None = option(None, "memory per node, such as 32G", affects="nothing", group="job")
    time: Time = option(
        "04:00:00",
        "time limit, in a format of sbatch; default with --rate: what the run is estimated to take",
        affects="nothing",
        group="job",
    )
    rate: float | None = option(
        None,
        "windows per second that one process trains on those nodes, as betman benchmark prints it "
        "there; see betman estimate",
        affects="nothing",
        group="job",
        gt=0,
    )
    partition: Word | None = option(None, "SLURM partition", affects="nothing", group="job")
    account: Word | None = option(None, "SLURM account to charge", affects="nothing", group="job")
    qos: Word | None = option(None, "quality of service", affects="nothing", group="job")
    constraint: Word | None = option(
        None,
        "features that the nodes must have, such as a100 or 'a100|h100'",
        affects="nothing",
        group="job",
    )
    mail: MailAddress | None = option(
        None,
        "address to which SLURM writes when the job ends, fails or is requeued",
        affects="nothing",
        group="job",
    )
    sbatch: SbatchText = option(
        SbatchOptions(),
        "further options of sbatch, such as '--exclusive --reservation=course'",
        affects="nothing",
        group="job",
    )
    job_name: Name = option(
        "lisbet", "name of the job and of its log file", affects="nothing", group="job"
    )
    seeds: Seeds = option(
        (),
        "submit a job array: one run per seed, named RUN_ID-seedN",
        affects="nothing",
        group="job",
    )
    container: Path | None = option(
        None,
        "Apptainer image that contains betman; default: betman is on PATH",
        affects="nothing",
        group="job",
    )
    bind: str | None = option(
        None,
        "folders to mount in the container besides the working directory",
        affects="nothing",
        group="job",
    )
    venv: Path | None = option(
        None,
        "virtual environment, or folder of a conda environment, that contains betman",
        affects="nothing",
        group="job",
    )
    setup: ShellLines = option(
        "",
        "lines of the shell to run first, such as 'module load apptainer; ulimit -n 4096'",
        affects="nothing",
        group="job",
    )
    launch: str = option(
        "ddp",
        "launch configuration for several processes: a name from betman launch_configs, or a path",
        affects="nothing",
        group="job",
    )

    @model_validator(mode="after")
    def _is_a_job(self) -> Self:
        if self.run_id is None:
            raise ConfigError(
                "--run_id is missing: the job resumes after an interruption, and needs the name "
                "of the run"
            )
        if self.container and self.venv:
            raise ConfigError("betman is in the --container or in the --venv; pass one of them")
        if self.bind and not self.container:
            raise ConfigError("--bind needs --container")
        if self.gres and self.gres.gpus and "gpus_per_node" in self.model_fields_set:
            raise ConfigError(
                f"--gres={self.gres} and --gpus_per_node both give the GPUs; pass one of them"
            )
        for name, own in (("mail-user", "mail"), ("mail-type", "mail"), ("mem-per-cpu", "mem"),
                          ("mem-per-gpu", "mem")):  # fmt: skip
            if name in self.sbatch.names and getattr(self, own) is not None:
                raise ConfigError(f"--sbatch=--{name} and --{own} exclude each other; pass one")
        if self.seeds and "seed" in self.model_fields_set:
            raise ConfigError("--seeds and --seed both give the seed; pass one of them")
        if not all(0 <= seed < 2**31 for seed in self.seeds):
            raise ConfigError(f"--seeds={','.join(map(str, self.seeds))}: SLURM counts from 0")
        for name in ("overwrite", "dry_run", "debug_step"):
            if getattr(self, name) not in (False, None):
                raise ConfigError(
                    f"--{name} cannot be used in a job that resumes itself; use train_model"
                )
        return self

    @property
    def gpus(self) -> int:
        """GPUs of each node."""
        named = self.gres.gpus if self.gres is not None else None
        return self.gpus_per_node if named is None else named

    @property
    def processes(self) -> int:
        """Processes over all nodes."""
        return self.nodes * (self.processes_per_node or self.gpus or 1)
