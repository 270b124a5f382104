"""What a training step costs: operations, memory and time. Nothing is written."""

import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lisbet.distributed.memory_policy import activation_limit
from lisbet.models.multitask import MultiTaskModel
from lisbet.training.datasets.batching import activation_bytes
from lisbet.training.datasets.sampler import Batch
from lisbet.training.evaluate import forward
from lisbet.training.inputs import TrainingInputs
from lisbet.training.trainer import Trainer

BLOCKS = 5
"""Each time is the median of so many blocks of calls."""
SMALLEST_BATCH, LARGEST_BATCH = 8, 8192
"""Windows of each task in the batches of which rates are measured."""
GROWS = 1.05
"""A rate that is not so many times that of half the batch does not grow any more."""
BYTES_PER_WEIGHT = 16
"""Weight, gradient, and AdamW's two moments, in float32."""
SAVED_PER_WEIGHT = 12
"""What a checkpoint holds of these: all but the gradient."""


@dataclass(frozen=True)
class Cost:
    """What one window costs, whatever the machine.

    Parameters
    ----------
    parameters : int
        Number of weights.
    activation_bytes : int
        Bytes that a forward pass of one window of each task stores for backward, in float32.
    """

    parameters: int
    activation_bytes: int


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the parts of a training step, on this process.

    Parameters
    ----------
    sampling : float
        Drawing the windows of this process.
    forward : float
        Forward passes and losses.
    compute : float
        Forward, backward, clipping and optimizer.
    step : float
        The whole step, as training makes it.
    """

    sampling: float
    forward: float
    compute: float
    step: float


def cost_of(inputs: TrainingInputs) -> Cost:
    """Count weights and memory of one window of each task, on the CPU."""
    network = MultiTaskModel(inputs.config)
    parameters = sum(weight.numel() for weight in network.parameters())
    return Cost(parameters, activation_bytes(network, _one_row(inputs)))


def flop_of(inputs: TrainingInputs) -> float:
    """Return the floating-point operations of forward and backward of one window.

    It is the mean over the tasks. A multiplication and an addition count as two.
    """
    network, row = MultiTaskModel(inputs.config), _one_row(inputs)
    counter = FlopCounterMode(display=False)
    with unfused(), counter:
        logits = forward(network, row)
        torch.stack(
            [task.loss(logits[name], row[name][1]) for name, task in inputs.tasks.items()]
        ).sum().backward()  # type: ignore[no-untyped-call]
    return counter.get_total_flops() / len(inputs.tasks)


def _one_row(inputs: TrainingInputs) -> Batch:
    batch = inputs.train.batch(0, 0, slice(0, 1))
    return {name: (windows.cpu(), labels.cpu()) for name, (windows, labels) in batch.items()}


@contextmanager
def unfused() -> Iterator[None]:
    """Compute attention and LSTM by matrix products, which PyTorch counts: nothing else it does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
            yield


def measure_step(trainer: Trainer, seconds: float) -> StepTimes:
    """Time the parts of a training step. All processes must call it.

    The weights change, as in training.

    Parameters
    ----------
    trainer : Trainer
        Before its first step.
    seconds : float
        How long each part is measured, approximately.
    """
    trainer.set_train_mode()
    batches = [trainer.sampler.batch(0, 0, rows) for rows in trainer.micro_batches]

    buffer, steps = replace(trainer.buffer), itertools.cycle(range(trainer.steps_per_epoch))

    def draw() -> None:
        number = next(steps)
        for rows in trainer.micro_batches:
            buffer.batch(0, number, rows)

    @torch.no_grad()
    def predict() -> None:
        for batch in batches:
            trainer.scores.losses_of(forward(trainer.strategy.model, batch), batch)

    def step() -> None:
        trainer.step %= trainer.steps_per_epoch
        trainer.train_step()

    calls = (draw, predict, lambda: _compute(trainer, batches), step)
    return StepTimes(*seconds_of(calls, seconds, trainer.accelerator.device))


def rates_by_batch(trainer: Trainer, seconds: float) -> dict[int, float]:
    """Measure forward and backward with batches of several sizes, as far as memory allows.

    Larger batches than that of a step repeat its windows. Weights do not change.

    Parameters
    ----------
    trainer : Trainer
        Before its first step; with one process.
    seconds : float
        How long it may take in all, approximately.

    Returns
    -------
    dict of int to float
        Windows per second of all tasks, by the number of windows of each task; ascending. The last
        sizes are those from which on the rate no longer grows.
    """
    trainer.set_train_mode()
    device = trainer.accelerator.device
    one = cost_of(trainer.inputs).activation_bytes
    most = min(LARGEST_BATCH, activation_limit(device) // max(1, one))
    rows = range(trainer.micro_batches[0].start, trainer.micro_batches[0].stop)
    batch = trainer.sampler.batch(0, 0, trainer.micro_batches[0])
    found: dict[int, float] = {}
    size = SMALLEST_BATCH
    while size <= most or not found:
        part = _resized(batch, len(rows), size)

        def call(part: Batch = part) -> None:
            losses = trainer.scores.losses_of(forward(trainer.strategy.model, part), part)
            trainer.accelerator.backward(losses.sum())
            trainer.strategy.optimizer.zero_grad()

        (spent,) = seconds_of((call,), seconds / 8, device)
        found[size] = size * len(batch) / spent
        last = list(found.values())[-3:]
        if len(last) == 3 and max(last[1:]) < GROWS * last[0]:  # twice without growing
            break
        size *= 2
    return found


def _resized(batch: Batch, own: int, size: int) -> Batch:
    """Return so many windows of each task, repeated if there are fewer."""
    times = -(-size // own)
    return {
        name: (torch.cat([windows] * times)[:size], torch.cat([labels] * times)[:size])
        for name, (windows, labels) in batch.items()
    }


def _compute(trainer: Trainer, batches: list[Batch]) -> None:
    """Make a step on batches that are there already."""
    strategy = trainer.strategy
    for batch in batches:
        with trainer.accelerator.accumulate(strategy.model):
            losses = trainer.scores.losses_of(forward(strategy.model, batch), batch)
            trainer.accelerator.backward(losses.sum())
            if trainer.accelerator.sync_gradients:
                strategy.clip_gradient(trainer.options.clip_grad_norm)
            strategy.optimizer.step()
            strategy.optimizer.zero_grad()


def seconds_of(
    calls: tuple[Callable[[], object], ...], seconds: float, device: torch.device
) -> list[float]:
    """Return the seconds of each call: the median of blocks of calls that take turns.

    All processes make the same number of calls.
    """
    counts = []
    for call in calls:
        call()
        call()  # the first one allocates and compiles
        once = _timed(call, 1, device)
        counts.append(max(1, min(10_000, round(seconds / BLOCKS / max(once, 1e-9)))))
    counts = broadcast_object_list(counts)
    times = [
        [_timed(call, count, device) for call, count in zip(calls, counts, strict=True)]
        for _ in range(BLOCKS)
    ]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def _timed(call: Callable[[], object], count: int, device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return (time.perf_counter() - began) / count


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def matrix_product(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Measure the floating-point operations per second of a large matrix product."""
    size = 1024 if device.type == "cpu" else 8192
    layer = nn.Linear(size, size, bias=False, device=device, dtype=dtype)
    values = torch.randn(size, size, device=device, dtype=dtype)
    with torch.no_grad():
        (spent,) = seconds_of((lambda: layer(values),), seconds, device)
    return 2.0 * size**3 / spent
