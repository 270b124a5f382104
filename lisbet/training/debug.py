"""Repeat one step of a run and print the loss of each sample, to find a non-finite one."""

import torch
from accelerate.utils import gather_object

from lisbet.core.errors import ConfigError, StoppedError
from lisbet.training.evaluate import forward
from lisbet.training.stopping import UNTOUCHED
from lisbet.training.trainer import Trainer


def print_step(trainer: Trainer, step: int) -> None:
    """Train up to a step, then print the loss of each sample of its batch; write nothing."""
    trainer.set_train_mode()
    last = trainer.options.epochs * trainer.steps_per_epoch - 1
    if step > last:
        raise ConfigError(f"--debug_step={step}: the last step of the run is {last}")
    while trainer.step < step:
        if trainer.flags.any(trainer.stop.is_requested())[0]:
            raise StoppedError(
                f"stopped by {trainer.stop.reason or 'another process'}; {UNTOUCHED}"
            )
        trainer.train_step()
    trainer.seed_dropout()
    lines = gather_object(
        [line for rows in trainer.micro_batches for line in _samples(trainer, rows)]
    )
    if trainer.is_main_process:
        epoch, within = divmod(step, trainer.steps_per_epoch)
        print(f"step {step}: epoch {epoch + 1}, batch {within}, before its update")
        print("task sample recording frame label loss")
        print("\n".join(line for _, line in sorted(lines)))


def _samples(trainer: Trainer, rows: slice) -> list[tuple[tuple[str, int], str]]:
    epoch, within = divmod(trainer.step, trainer.steps_per_epoch)
    sampler = trainer.sampler
    batch, noise = trainer.buffer.batch(epoch, within, rows)
    with torch.no_grad():
        logits = forward(trainer.strategy.model, batch, trainer.conditioning, noise)
    lines = []
    for name, task in trainer.inputs.tasks.items():
        index, _ = sampler.draw(name, epoch, range(within, within + 1), rows)
        bank, labels = sampler.bank(name, epoch, within), batch[name][1]
        for number, row in enumerate(range(rows.start, rows.stop)):
            one = slice(number, number + 1)
            loss = task.loss(logits[name][one], labels[one]).item()
            record, frame = (int(part[number].flat[0]) for part in (index.record, index.frame))
            label = labels[number].tolist()
            text = f"{name} {row} {bank.ids[record]} {frame} {label} {loss:.6g}"
            lines.append(((name, row), text))
    return lines
