"""Train a model: the whole story, from recordings to weights."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lisbet.core.allocator import keep_freed_memory
from lisbet.core.errors import StoppedError
from lisbet.core.storage.lock import Lock
from lisbet.distributed.cores import cores
from lisbet.distributed.failure_watch import together
from lisbet.distributed.other_runs import warn_of_other_runs
from lisbet.models.multitask import MultiTaskModel, load_backbone
from lisbet.options import TrainOptions
from lisbet.training import run_folder
from lisbet.training.checkpoint import resume
from lisbet.training.datasets.batching import Batching
from lisbet.training.debug import print_step
from lisbet.training.dry_run import describe_start
from lisbet.training.logging import identity, require_installed
from lisbet.training.logging.model_card import write_card
from lisbet.training.optim import make_optimizer, rate_factor
from lisbet.training.run import Run
from lisbet.training.setup import Setup
from lisbet.training.stopping import Agreement, Stops
from lisbet.training.strategies import strategy

log = logging.getLogger(__name__)


def train_model(options: TrainOptions) -> None:
    """Train a model as the options say, on every process that there is."""
    started = time.monotonic()
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    start = together(options.mixed_precision, compiled=options.compile)
    with Stops() as stops, start as accelerator:
        train_on(accelerator, options, stops, started)


def train_on(accelerator: Accelerator, options: TrainOptions, stops: Stops, started: float) -> None:
    """Train on the processes there are; nothing is written before everything was checked."""
    options = run_folder.with_run_id(options)
    with run_folder.writing(options) as lock:
        _train(accelerator, options, stops, started, lock)


def _train(
    accelerator: Accelerator,
    options: TrainOptions,
    stops: Stops,
    started: float,
    lock: Lock | None,
) -> None:
    run, description, checkpoint = make_run(accelerator, options, started)
    if options.debug_step is None:
        _warn_of_warmup(options)
    if accelerator.num_processes == 1 and accelerator.device.type == "cpu":
        warn_of_other_runs(cores())
    run.lock = lock
    setup, speaks = run.setup, accelerator.is_main_process
    if options.dry_run:
        start = describe_start(run, checkpoint)
        if speaks:
            print(yaml.safe_dump(run.config["options"], sort_keys=False))
            print(f"{description}\n{start}\ndry run: nothing was written")
        return
    if checkpoint is not None:
        run.take_up(checkpoint)
    elif options.resume:
        finished: list[Any] = [None]
        if speaks:
            finished = [
                resume.finished_without_checkpoint(setup.folder, run.config, options.epochs)
            ]
        if broadcast_object_list(finished)[0]:
            if speaks:
                print(f"{setup.folder} is finished; its checkpoints were removed")
            return
    if options.debug_step is not None:
        stops.running = True
        print_step(run, options.debug_step, stops)
        return
    agreement = Agreement()
    accelerator.wait_for_everyone()  # all have looked at the folder before one makes it
    stops.running = True
    if speaks:
        log.info("%s", description)
        if checkpoint is None:
            run_folder.create(options, setup.folder, setup.config, run.config)
        elif run.epoch < options.epochs:
            run_folder.update_config(setup.folder, run.config)
    try:
        run.tracking.start(run.step, run.epoch, again=checkpoint is not None)
        while run.epoch < options.epochs:
            run.train_epoch(agreement, stops)
            run.finish_epoch(agreement, stops)
        run.finish()
        if speaks:
            write_card(run)
    except BaseException as error:
        run.tracking.finish(error)
        if speaks and not isinstance(error, StoppedError):
            run_folder.restore_earlier_model(setup.folder)
        raise
    run.tracking.finish()
    if speaks:
        print(f"model written to {setup.folder}")


def _warn_of_warmup(options: TrainOptions) -> None:
    """Warn on the main process if the learning rate does not reach its peak."""
    if options.epochs <= options.warmup_epochs:
        reached = rate_factor(options.epochs, 1, options.warmup_epochs)
        log.warning(
            "--epochs=%d is not larger than --warmup_epochs=%d: the learning rate rises until the "
            "end, to %.0f%% of --learning_rate=%g. Train for more epochs, or use a smaller "
            "--warmup_epochs",
            options.epochs,
            options.warmup_epochs,
            100 * reached,
            options.learning_rate,
        )


def make_run(
    accelerator: Accelerator, options: TrainOptions, started: float
) -> tuple[Run, str, Path | None]:
    """Read and check everything, and build what is trained.

    Returns
    -------
    run : Run
        Before its first step.
    description : str
        Data, network, devices and batch, in a few lines.
    checkpoint : Path or None
        What it is to go on from.
    """
    batching = Batching.of(options.batch_size, accelerator.num_processes, options.micro_batch_size)
    require_installed(options)
    setup = Setup.from_options(options, accelerator.device)
    checkpoint = None
    if setup.goes_on:
        up_to = options.debug_step
        checkpoint = resume.newest_good(setup.folder, accelerator, up_to=up_to)

    torch.manual_seed(options.seed)
    bare = build(setup, options)
    if options.micro_batch_size is None:
        row = setup.train.batch(0, 0, slice(0, 1))
        batching = batching.fitted(bare, row, accelerator.device)
        batching = resume.same_passes(batching, checkpoint)
    optimizer = make_optimizer(bare, options.learning_rate, options.weight_decay)
    config = setup.run_config(options, accelerator, batching) | identity(options, setup.folder)
    description = setup.describe(bare, accelerator, batching)
    model, optimizer = strategy.prepare(
        accelerator, bare, optimizer, batching, options.clip_grad_norm
    )
    run = Run(accelerator, options, setup, batching, bare, model, optimizer, config, started)
    return run, description, checkpoint


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
