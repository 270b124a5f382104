"""Repeat one step of a run and print each of its samples: which one is it that breaks the loss?"""

import torch
from accelerate.utils import gather_object

from lisbet.core.errors import ConfigError, StoppedError
from lisbet.training.evaluate import forward
from lisbet.training.run import Run
from lisbet.training.stopping import UNTOUCHED, Agreement, Stops


def print_step(run: Run, step: int, stops: Stops) -> None:
    """Train up to a step, then answer its batch and print every sample's loss; write nothing."""
    agreement = Agreement()
    run.model.train()
    run.bare.backbone.train(not run.options.freeze_backbone_weights)
    last = run.options.epochs * run.train.steps - 1
    if step > last:
        raise ConfigError(f"--debug_step={step}: the last step of the run is {last}")
    while run.step < step:
        if agreement.any(bool(stops.reason))[0]:
            raise StoppedError(f"stopped by {stops.reason or 'another process'}; {UNTOUCHED}")
        run.make_step(agreement)
    run.seed_dropout()
    lines = gather_object([line for rows in run.passes for line in _samples(run, rows)])
    if run.speaks:
        epoch, within = divmod(step, run.train.steps)
        print(f"step {step}: epoch {epoch + 1}, batch {within}, before its update")
        print("task sample recording frame label loss")
        print("\n".join(line for _, line in sorted(lines)))


def _samples(run: Run, rows: slice) -> list[tuple[tuple[str, int], str]]:
    epoch, within = divmod(run.step, run.train.steps)
    batch = run.train.batch(epoch, within, rows)
    with torch.no_grad():
        logits = forward(run.model, batch)
    lines = []
    for name, task in run.setup.tasks.items():
        plan, _ = run.train.plan(name, epoch, within, rows)
        bank, labels = run.train.bank(name, epoch, within), batch[name][1]
        for number, row in enumerate(range(rows.start, rows.stop)):
            one = slice(number, number + 1)
            loss = task.loss(logits[name][one], labels[one]).item()
            record, frame = (int(part[number].flat[0]) for part in (plan.record, plan.frame))
            label = labels[number].tolist()
            text = f"{name} {row} {bank.ids[record]} {frame} {label} {loss:.6g}"
            lines.append(((name, row), text))
    return lines
