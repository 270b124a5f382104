"""Train a model: the whole story, from recordings to weights."""

import logging
import math
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from lisbet import model_dir
from lisbet.allocator import keep_freed_memory
from lisbet.errors import ConfigError, DataError
from lisbet.models.multitask import MultiTaskModel, load_backbone
from lisbet.options import TrainOptions
from lisbet.processes.together import together
from lisbet.training import strategy
from lisbet.training.batching import Batching
from lisbet.training.checkpoint import save_checkpoint
from lisbet.training.hashes import HASHES, SampleHashes
from lisbet.training.history import HISTORY, write_history
from lisbet.training.optim import make_optimizer, make_schedule
from lisbet.training.progress import Reporter
from lisbet.training.sampler import Batch, Sampler
from lisbet.training.scores import Scores
from lisbet.training.setup import Setup

log = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints of a run."""


def train_model(options: TrainOptions) -> None:
    """Train a model as the options say, on every process that there is."""
    keep_freed_memory()
    with together(precision(options.mixed_precision)) as accelerator:
        train_on(accelerator, options)


def train_on(accelerator: Accelerator, options: TrainOptions) -> None:
    """Train on the processes there are; nothing is written before everything was checked."""
    batching = Batching.of(options.batch_size, accelerator.num_processes, options.micro_batch_size)
    setup = Setup.from_options(options, accelerator.device)
    train, speaks = setup.train, accelerator.is_main_process

    torch.manual_seed(options.seed)
    bare = build(setup, options)
    if options.micro_batch_size is None:
        batching = batching.fitted(bare, train.batch(0, 0, slice(0, 1)), accelerator.device)
    passes = batching.rows(accelerator.process_index)
    optimizer = make_optimizer(bare, options.learning_rate, options.weight_decay)
    schedule = make_schedule(optimizer, train.steps, options.warmup_epochs)
    run = setup.run_config(options, accelerator, batching)
    description = setup.describe(bare, accelerator, batching)
    model, optimizer = strategy.prepare(
        accelerator, bare, optimizer, batching, options.clip_grad_norm
    )
    if options.dry_run:
        if speaks:
            print(yaml.safe_dump(run["options"], sort_keys=False))
            print(f"{description}\ndry run: nothing was written")
        return
    accelerator.wait_for_everyone()  # all have looked at the folder before one makes it
    if speaks:
        log.info("%s", description)
        model_dir.create(setup.folder, setup.config, run)

    windows = options.batch_size * len(setup.tasks)
    reporter = Reporter(options.epochs, train.steps, windows, speaks=speaks)
    scores = Scores(setup.tasks, accelerator.device)
    history: list[dict[str, float]] = []
    hashes = SampleHashes() if options.hash_samples else None
    for epoch in range(options.epochs):
        row: dict[str, float] = {"epoch": epoch, "learning_rate": float(schedule.get_last_lr()[0])}
        model.train()
        bare.backbone.train(not options.freeze_backbone_weights)
        with reporter.epoch(epoch) as tick:
            for step in range(train.steps):
                for rows in passes:
                    batch = train.batch(epoch, step, rows)
                    if hashes is not None:
                        hashes.add(epoch, step, rows, batch)
                    with accelerator.accumulate(model):
                        accelerator.backward(scores.total_loss(*forward(model, batch)))
                        if options.clip_grad_norm is not None and accelerator.sync_gradients:
                            accelerator.clip_grad_norm_(model.parameters(), options.clip_grad_norm)
                        optimizer.step()
                        optimizer.zero_grad()
                schedule.step()
                tick()
        row |= scores.compute("train")
        if setup.dev is not None:
            row |= evaluate(model, setup.dev, passes, scores)
        history.append(row)
        weights = strategy.full_weights(accelerator, model)
        (fine,) = broadcast_object_list([is_finite(row, weights)])
        if not fine:
            if speaks:
                model_dir.restore_replaced(setup.folder)
            raise diverged(epoch, row["train_loss"], setup.folder)
        if speaks:
            save(setup.folder, weights, history, options)
        if hashes is not None:
            hashes.write(setup.folder / HASHES, speaks=speaks)
        save_checkpoint(
            accelerator, model, optimizer, setup.folder, (epoch + 1) * train.steps, KEPT
        )
        reporter.finished(epoch, row)
    if speaks:
        print(f"model written to {setup.folder}")


def build(setup: Setup, options: TrainOptions) -> MultiTaskModel:
    """Make the network, from the weights of another one where that is asked for."""
    model = MultiTaskModel(setup.config)
    if setup.backbone is not None:
        told = load_backbone(model, setup.backbone, str(options.load_backbone_weights))
        log.warning("%s", told)
    if options.freeze_backbone_weights:
        if setup.backbone is None:
            log.warning(
                "the backbone is frozen as it was drawn at random; "
                "pass --load_backbone_weights to start from a trained one"
            )
        model.backbone.requires_grad_(False)
    return model


@torch.no_grad()
def evaluate(
    model: nn.Module, dev: Sampler, passes: list[slice], scores: Scores
) -> dict[str, float]:
    """Score the model on the held-out recordings: the same windows after every epoch."""
    model.eval()
    for step in range(dev.steps):
        for rows in passes:
            scores.total_loss(*forward(model, dev.batch(0, step, rows)))
    return scores.compute("dev")


def save(
    folder: Path,
    weights: dict[str, torch.Tensor],
    history: list[dict[str, float]],
    options: TrainOptions,
) -> None:
    """Publish the weights of an epoch, and the history so far."""
    row = history[-1]
    place = (folder / model_dir.WEIGHTS_LAST).parent
    if options.save_weights == "all":
        model_dir.save_weights(place / f"weights_epoch{len(history) - 1}.pt", weights)
    if options.save_weights == "best" and row is min(history, key=lambda row: row["dev_loss"]):
        model_dir.save_weights(place / "weights_best.pt", weights)
    model_dir.save_weights(folder / model_dir.WEIGHTS_LAST, weights)
    model_dir.discard_replaced(folder)
    if options.save_history:
        write_history(folder / HISTORY, history)


def diverged(epoch: int, loss: float, folder: Path) -> DataError:
    """Say that training left the numbers, and what is left of it."""
    left = f"the weights of epoch {epoch} are in {folder}" if epoch else "no model was written"
    return DataError(
        f"epoch {epoch + 1}: the loss is {loss:g} or weights are no longer finite; try a smaller "
        f"--learning_rate or --clip_grad_norm=1 ({left})"
    )


def forward(model: nn.Module, batch: Batch) -> tuple[dict[str, torch.Tensor], Batch]:
    """Answer a batch: one forward for all tasks, as DDP cannot reduce heads that sat out."""
    return model({name: windows for name, (windows, _) in batch.items()}), batch


def is_finite(row: dict[str, float], weights: dict[str, torch.Tensor]) -> bool:
    """Say whether an epoch ended in numbers."""
    return math.isfinite(row["train_loss"]) and all(
        bool(weight.isfinite().all()) for weight in weights.values()
    )


def precision(wanted: str | None) -> str | None:
    """Resolve ``--mixed_precision``; None leaves the choice to the launcher.

    Raises
    ------
    ConfigError
        For fp16 without a GPU, which would silently train in float32.
    """
    gpu = torch.cuda.is_available()
    if wanted == "best":
        return ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if gpu else "no"
    if wanted == "fp16" and not gpu:
        raise ConfigError("--mixed_precision=fp16 needs a GPU, and there is none; use bf16 or no")
    return wanted
