"""``betman train_model``: start the processes, check everything, train."""

import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lisbet.core.allocator import keep_freed_memory
from lisbet.core.errors import StoppedError
from lisbet.distributed.cores import cores
from lisbet.distributed.failure_watch import distributed_session
from lisbet.distributed.other_runs import warn_of_other_runs
from lisbet.models.multitask import MultiTaskModel, load_backbone
from lisbet.options import TrainOptions
from lisbet.training import run_folder
from lisbet.training.checkpoint import resume
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.datasets.batching import Batching
from lisbet.training.debug import print_step
from lisbet.training.dry_run import describe_start
from lisbet.training.inputs import TrainingInputs
from lisbet.training.loggers import identity, require_available
from lisbet.training.logging.model_card import write_card
from lisbet.training.logging.probing import require_annotated
from lisbet.training.optim import make_optimizer
from lisbet.training.stopping import StopSignal
from lisbet.training.strategies import strategy_of
from lisbet.training.trainer import Trainer

log = logging.getLogger(__name__)


def train_model(options: TrainOptions) -> None:
    """Train a model, on every process that was started."""
    set_up(options)
    session = distributed_session(options.mixed_precision, compiled=options.compile)
    with StopSignal(options.max_time) as stop, session as accelerator:
        train_on(accelerator, options, stop)


def set_up(options: TrainOptions) -> None:
    """Set what holds for the whole process, before it starts."""
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32


def train_on(accelerator: Accelerator, options: TrainOptions, stop: StopSignal) -> None:
    """Train on these processes; nothing is written before everything was checked."""
    options = run_folder.with_run_id(options)
    with run_folder.writing(options) as lock:
        trainer, description, checkpoint = make_trainer(accelerator, options, stop)
        trainer.lock = lock
        if options.debug_step is None:
            _warn_of_warmup(trainer)
        if accelerator.num_processes == 1 and accelerator.device.type == "cpu":
            warn_of_other_runs(cores())
        if options.dry_run:
            _print_dry_run(trainer, description, checkpoint)
            return
        if checkpoint is not None:
            trainer.load_checkpoint(checkpoint)
        elif options.resume and _is_finished(trainer):
            return
        if options.debug_step is not None:
            stop.running = True
            print_step(trainer, options.debug_step)
            return
        _train(trainer, description, resumed=checkpoint is not None)


def _train(trainer: Trainer, description: str, *, resumed: bool) -> None:
    """Write the folder of the run, train, and record how the run ended."""
    folder, options = trainer.folder, trainer.options
    trainer.accelerator.wait_for_everyone()  # all have checked the folder before it is written
    trainer.stop.running = True
    if trainer.is_main_process:
        log.info("%s", description)
        if not resumed:
            run_folder.create(options, folder, trainer.inputs.config, trainer.config)
        elif trainer.epoch < options.epochs:
            run_folder.update_config(folder, trainer.config)
    try:
        trainer.logger.start(trainer.step, trainer.epoch, resumed=resumed)
        trainer.train()
        if trainer.is_main_process:
            write_card(trainer)
    except BaseException as error:
        trainer.logger.finish(error)
        if trainer.is_main_process and not isinstance(error, StoppedError):
            run_folder.restore_earlier_model(folder)
        raise
    trainer.logger.finish()
    if trainer.is_main_process and not options.quiet:
        print(f"model written to {folder}")


def make_trainer(
    accelerator: Accelerator, options: TrainOptions, stop: StopSignal
) -> tuple[Trainer, str, Path | None]:
    """Read and check everything, and build the trainer.

    Returns
    -------
    trainer : Trainer
        Before its first step.
    description : str
        Data, network, devices and batch, in a few lines.
    checkpoint : Path or None
        The checkpoint to resume from.
    """
    batching = Batching.of(options.batch_size, accelerator.num_processes, options.micro_batch_size)
    require_available(options)
    inputs = TrainingInputs.from_options(options, accelerator.device)
    if options.probe_every:
        require_annotated(inputs)
    checkpoint = None
    if inputs.resuming:
        directory = CheckpointDirectory(inputs.folder)
        checkpoint = resume.newest_valid(directory, accelerator, up_to=options.debug_step)

    torch.manual_seed(options.seed)
    network = build(inputs, options)
    if options.micro_batch_size is None:
        row = inputs.train.batch(0, 0, slice(0, 1))
        batching = batching.fitted(network, row, accelerator.device)
        batching = resume.same_micro_batches(batching, checkpoint)
    optimizer = make_optimizer(network, options.learning_rate, options.weight_decay)
    strategy = strategy_of(accelerator)
    config = inputs.run_config(options, strategy, batching) | identity(options, inputs.folder)
    description = inputs.describe(network, strategy, batching)
    strategy.prepare(network, optimizer, batching, options.clip_grad_norm)
    trainer = Trainer(options, inputs, batching, strategy, config, stop)
    return trainer, description, checkpoint


def build(inputs: TrainingInputs, options: TrainOptions) -> MultiTaskModel:
    """Make the network, from the weights of another model if the options say so."""
    model = MultiTaskModel(inputs.config)
    if inputs.backbone is not None:
        message = load_backbone(model, inputs.backbone, str(options.load_backbone_weights))
        log.warning("%s", message)
        if inputs.conditioning is not None:
            inputs.conditioning.unfold(model)
    if options.freeze_backbone_weights:
        if inputs.backbone is None:
            log.warning(
                "the frozen backbone has random weights; "
                "pass --load_backbone_weights to use a trained one"
            )
        model.backbone.requires_grad_(False)
    return model


def _print_dry_run(trainer: Trainer, description: str, checkpoint: Path | None) -> None:
    start = describe_start(trainer, checkpoint)
    if trainer.is_main_process:
        print(yaml.safe_dump(trainer.config["options"], sort_keys=False))
        print(f"{description}\n{start}\ndry run: nothing was written")


def _is_finished(trainer: Trainer) -> bool:
    """Whether a run that is to be resumed, and has no checkpoint, is finished."""
    finished: list[Any] = [None]
    if trainer.is_main_process:
        epochs = trainer.options.epochs
        finished = [resume.finished_without_checkpoint(trainer.folder, trainer.config, epochs)]
        if finished[0] and not trainer.options.quiet:
            print(f"{trainer.folder} is finished; its checkpoints were removed")
    return bool(broadcast_object_list(finished)[0])


def _warn_of_warmup(trainer: Trainer) -> None:
    """Warn on the main process if the learning rate does not reach its peak."""
    options, schedule = trainer.options, trainer.schedule
    steps = options.epochs * schedule.steps_per_epoch
    if steps <= schedule.warmup:
        log.warning(
            "--epochs=%d is not larger than --warmup_epochs=%d: the learning rate rises until the "
            "end, to %.0f%% of --learning_rate=%g. Train for more epochs, or use a smaller "
            "--warmup_epochs",
            options.epochs,
            options.warmup_epochs,
            100 * schedule.factor(steps),
            options.learning_rate,
        )
