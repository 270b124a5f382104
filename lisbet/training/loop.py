"""Train a model: the whole story, from recordings to weights."""

import logging

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from lisbet import model_dir
from lisbet.allocator import keep_freed_memory
from lisbet.models.multitask import MultiTaskModel
from lisbet.options import TrainOptions
from lisbet.training.history import HISTORY, write_history
from lisbet.training.optim import make_optimizer, make_schedule
from lisbet.training.progress import Reporter
from lisbet.training.sampler import Batch, Sampler, share
from lisbet.training.scores import Scores
from lisbet.training.setup import Setup

log = logging.getLogger(__name__)


def train_model(options: TrainOptions) -> None:
    """Train a model as the options say; nothing is written before everything was checked."""
    keep_freed_memory()
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    rows = share(options.batch_size, accelerator.process_index, accelerator.num_processes)
    setup = Setup.from_options(options, accelerator.device)
    train = setup.train

    set_seed(options.seed)
    bare = MultiTaskModel(setup.config)
    optimizer = make_optimizer(bare, options.learning_rate, options.weight_decay)
    schedule = make_schedule(optimizer, train.steps, options.warmup_epochs)
    model, optimizer = accelerator.prepare(bare, optimizer)
    devices = f"{accelerator.num_processes} × {accelerator.device}"
    parameters = sum(weight.numel() for weight in bare.parameters())
    if accelerator.is_main_process:
        log.info("%s", setup.describe(parameters, devices))
        model_dir.create(setup.folder, setup.config, setup.run_config(options))

    speaks = accelerator.is_main_process
    reporter = Reporter(
        options.epochs, train.steps, options.batch_size * len(setup.tasks), speaks=speaks
    )
    scores = Scores(setup.tasks, accelerator.device)
    history: list[dict[str, float]] = []
    for epoch in range(options.epochs):
        row: dict[str, float] = {"epoch": epoch, "learning_rate": float(schedule.get_last_lr()[0])}
        model.train()
        with reporter.epoch(epoch) as tick:
            for step in range(train.steps):
                batch = train.batch(epoch, step, rows)
                # One forward and one backward for all tasks: DDP cannot reduce heads that sat out.
                accelerator.backward(scores.total_loss(model(windows_of(batch)), batch))
                if options.clip_grad_norm is not None:
                    accelerator.clip_grad_norm_(model.parameters(), options.clip_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                tick()
        row |= scores.compute("train")
        if setup.dev is not None:
            row |= evaluate(model, setup.dev, rows, scores)
        history.append(row)
        weights = accelerator.get_state_dict(model)
        if accelerator.is_main_process:
            model_dir.save_weights(setup.folder / model_dir.WEIGHTS_LAST, weights)
            model_dir.discard_replaced(setup.folder)
            if options.save_history:
                write_history(setup.folder / HISTORY, history)
        reporter.finished(epoch, row)
    if accelerator.is_main_process:
        print(f"model written to {setup.folder}")
    accelerator.end_training()


@torch.no_grad()
def evaluate(model: torch.nn.Module, dev: Sampler, rows: slice, scores: Scores) -> dict[str, float]:
    """Score the model on the held-out recordings: the same windows after every epoch."""
    model.eval()
    for step in range(dev.steps):
        batch = dev.batch(0, step, rows)
        scores.total_loss(model(windows_of(batch)), batch)
    return scores.compute("dev")


def windows_of(batch: Batch) -> dict[str, torch.Tensor]:
    """Return what the network takes of a batch."""
    return {name: windows for name, (windows, _) in batch.items()}
