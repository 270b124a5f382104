"""``betman estimate``: what a training run would take."""

import math
from dataclasses import dataclass

import psutil

from lisbet.commands.machine.scaling import advice
from lisbet.core.errors import counted
from lisbet.distributed.failure_watch import distributed_session
from lisbet.options import EstimateOptions, TrainingOptions, TrainOptions
from lisbet.training.datasets.batching import Batching
from lisbet.training.inputs import TrainingInputs
from lisbet.training.measure import (
    BYTES_PER_WEIGHT,
    SAVED_PER_WEIGHT,
    Cost,
    cost_of,
    flop_of,
    measure_step,
    rates_by_batch,
)
from lisbet.training.stopping import StopSignal
from lisbet.training.train import make_trainer, set_up

FORWARD_SHARE = 1 / 3
"""Share of forward and backward that the forward pass is: a backward pass has twice its matrix
products. Scores of held-out recordings need the forward pass only."""
SHARDS_WEIGHTS = ("fsdp", "deepspeed_zero3")
"""Launch files whose strategy keeps a part of weights and optimizer on each process."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Parameters
    ----------
    cost : Cost
        Of one window.
    processes : int
        Number of processes, each with a device.
    steps : int
        Optimizer steps of all epochs.
    windows : int
        Windows of all tasks and epochs, that are trained on.
    dev_windows : int
        Windows of all epochs that are scored, of held-out recordings.
    recordings : int
        Bytes of the recordings in memory, of each process.
    state, activations : int
        Bytes of weights, gradients and optimizer, and of what a micro-batch keeps for backward; of
        each process.
    program : int
        Bytes of host memory of each process, besides state and activations.
    weights, checkpoint : int
        Bytes of a file of weights, and of a checkpoint.
    checkpoints : int
        How many checkpoints are kept.
    """

    cost: Cost
    processes: int
    steps: int
    windows: int
    dev_windows: int
    recordings: int
    state: int
    activations: int
    program: int
    weights: int
    checkpoint: int
    checkpoints: int

    @property
    def effective_windows(self) -> float:
        """Windows to train on that would take as long as all windows do."""
        return self.windows + FORWARD_SHARE * self.dev_windows

    def seconds(self, rate: float) -> float:
        """Return the seconds of training and scoring.

        Parameters
        ----------
        rate : float
            Windows per second that each process trains.
        """
        return self.effective_windows / (rate * self.processes)

    def host(self, *, on_gpu: bool) -> int:
        """Return the bytes of host memory of each process."""
        return self.program + (0 if on_gpu else self.state + self.activations)

    @property
    def device(self) -> int:
        """Bytes that are allocated on each GPU, if recordings are kept there."""
        return self.recordings + self.state + self.activations


def estimate(options: EstimateOptions) -> None:
    """Print the estimate."""
    processes = options.num_processes or 1
    Batching.of(options.batch_size, processes, options.micro_batch_size)
    set_up(options)
    session = distributed_session(options.mixed_precision, compiled=options.compile)
    with session as accelerator:
        trainer, description, _ = make_trainer(accelerator, as_new_run(options), StopSignal())
        micro = len(range(trainer.micro_batches[0].start, trainer.micro_batches[0].stop))
        found = estimate_of(options, trainer.inputs, processes, micro)
        device = accelerator.device.type
        rate, how = options.rate, "as --rate says"
        rates: dict[int, float] = {}
        if rate is None:
            times = measure_step(trainer, options.seconds)
            rate = options.batch_size * len(trainer.inputs.tasks) / times.step
            how = f"measured here on one {device.upper()}"
            rates = rates_by_batch(trainer, options.seconds)
        print(f"{description}\n{table(found, flop_of(trainer.inputs), rate, how)}\n")
        print(advice(options.batch_size, processes, options.learning_rate, rates, device.upper()))


def as_new_run(options: TrainOptions) -> TrainOptions:
    """Return the options of a run that finds nothing to resume, replace or refuse."""
    changes = {"run_id": None, "resume": False, "overwrite": False, "debug_step": None}
    return options.model_copy(update=changes)


def estimate_of(
    options: TrainingOptions,
    inputs: TrainingInputs,
    processes: int,
    micro_batch_size: int,
) -> Estimate:
    """Estimate a run from what was read and checked for it.

    Parameters
    ----------
    options : TrainingOptions
        Its options; ``launch`` is one of them.
    inputs : TrainingInputs
        Its recordings and network.
    processes : int
        Number of its processes.
    micro_batch_size : int
        Most windows of each task in one forward pass of one process.
    """
    cost = cost_of(inputs)
    steps = options.epochs * inputs.train.steps
    windows = options.batch_size * len(inputs.tasks)
    dev = 0 if inputs.dev is None else options.epochs * inputs.dev.steps * windows
    recordings = inputs.loaded.bank.bytes
    if inputs.loaded.memory is not None:
        recordings = min(recordings, inputs.loaded.memory)
    launch = str(getattr(options, "launch", None))
    parts = processes if launch.startswith(SHARDS_WEIGHTS) else 1
    return Estimate(
        cost=cost,
        processes=processes,
        steps=steps,
        windows=steps * windows,
        dev_windows=dev,
        recordings=recordings,
        state=BYTES_PER_WEIGHT * cost.parameters // parts,
        activations=cost.activation_bytes * min(micro_batch_size, options.batch_size // processes),
        program=psutil.Process().memory_info().rss,
        weights=4 * cost.parameters,
        checkpoint=SAVED_PER_WEIGHT * cost.parameters,
        checkpoints=options.keep_checkpoints,
    )


def table(found: Estimate, flop: float, rate: float, how: str) -> str:
    """Return the estimate as lines for a terminal.

    Parameters
    ----------
    found : Estimate
        Of the run.
    flop : float
        Floating-point operations of forward and backward of one window.
    rate : float
        Windows per second that each process trains.
    how : str
        Where the rate is from.
    """
    each = "" if found.processes == 1 else " for each process"
    disk = found.weights + found.checkpoints * found.checkpoint
    rows = {
        "processes": f"{found.processes}",
        "steps": f"{found.steps:,}",
        "windows": f"{found.windows:,} to train on, {found.dev_windows:,} to score",
        "operations": f"{number(flop)}FLOP for each window to train on, "
        f"{number(flop * found.effective_windows)}FLOP in all",
        "on a CPU": f"{size(found.host(on_gpu=False))} of memory{each}",
        "on a GPU": f"{size(found.device)} of its memory{each}: recordings "
        f"{size(found.recordings)}, weights and optimizer {size(found.state)}, activations "
        f"{size(found.activations)} (float32)",
        "disk": f"{size(disk)}: weights {size(found.weights)}, "
        f"{counted(found.checkpoints, 'checkpoint')} of {size(found.checkpoint)}",
        "rate": f"{rate:,.0f} windows/s{each}, {how}; {number(flop * rate)}FLOP/s",
        "time": duration(found.seconds(rate))
        + ("" if found.processes == 1 else ", if communication takes no time"),
    }
    return "\n".join(f"{name + ':':12} {text}" for name, text in rows.items())


def number(value: float) -> str:
    """Return a number with a prefix of the SI: 1.2e9 as ``1.2 G``."""
    power = min(max(0, int(math.log10(max(value, 1)) // 3)), 6)
    return f"{value / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P', 'E'][power]}"


def size(count: float) -> str:
    """Return a number of bytes, in MB or GB of 1024."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"


def duration(seconds: float) -> str:
    """Return a duration as a person says it."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
