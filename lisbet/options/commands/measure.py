"""The options of commands that measure what training costs."""

from typing import Self

from pydantic import model_validator

from lisbet.core.errors import ConfigError
from lisbet.options._base import DataPaths, option, positional
from lisbet.options._train import TrainOptions


class EstimateOptions(TrainOptions):
    """Estimate what a training run would take: steps, time, memory and disk.

    It takes the options of train_model and trains a few steps on one device of this machine, to
    measure them, unless --rate says how fast other devices are. Nothing is written. With --launch,
    it estimates for --num_processes processes, but starts only one.

    Examples
    --------
    betman estimate --epochs=20 datasets/mice
    betman estimate --rate=40000 --launch=ddp --num_processes=8 --epochs=20 --batch_size=1024 \
datasets/mice
    """

    rate: float | None = option(
        None,
        "windows per second that one device trains, as betman benchmark prints it there; default: "
        "measured on this machine",
        affects="nothing",
        group="estimate",
        gt=0,
    )
    seconds: float = option(
        5.0, "how long to measure", affects="nothing", group="estimate", unit="s", gt=0
    )

    @model_validator(mode="after")
    def _number_of_processes_is_known(self) -> Self:
        if self.launch is not None and self.num_processes is None:
            raise ConfigError("--launch needs --num_processes here, to know for how many devices")
        return self


class BenchmarkOptions(TrainOptions):
    """Measure how fast this machine trains: sampling, forward pass, step, and what it waits for.

    It takes the options of train_model. Nothing is written. The last line compares machines.

    Examples
    --------
    betman benchmark
    betman benchmark --emb_dim=64 --num_layers=8 --batch_size=512 --mixed_precision --compile
    betman benchmark --launch=ddp --num_processes=2 datasets/mice
    """

    data_path: DataPaths = positional(
        "recordings, as for train_model; default: simulated recordings of two mice",
        affects="files",
        default=(),
    )
    seconds: float = option(
        5.0, "how long to measure each part", affects="nothing", group="benchmark", unit="s", gt=0
    )
