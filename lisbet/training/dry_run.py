"""``train_model --dry_run``: print what the run would do, and write nothing."""

from pathlib import Path

from lisbet.training.checkpoint import resume
from lisbet.training.checkpoint.manifest import Manifest
from lisbet.training.checkpoint.writer import read_state
from lisbet.training.trainer import Trainer


def describe_start(trainer: Trainer, checkpoint: Path | None) -> str:
    """Check what a run would start from, as the run itself would, and describe it.

    Parameters
    ----------
    trainer : Trainer
        Before its first step.
    checkpoint : Path or None
        The checkpoint that it would be resumed from.

    Returns
    -------
    str
        One line.

    Raises
    ------
    LisbetError
        The error that the run would end with: other options, recordings or strategy, or weights
        without a checkpoint.
    """
    folder, epochs = trainer.folder, trainer.options.epochs
    if checkpoint is None:
        if trainer.options.resume:
            if resume.finished_without_checkpoint(folder, trainer.config, epochs):
                return f"start:       {folder} is finished; its checkpoints were removed"
            return f"start:       {folder} has no checkpoint, the run would start at step 0"
        return f"start:       a new run, {folder}"
    manifest = Manifest.read(checkpoint)
    state, _ = read_state(checkpoint)
    resume.require_same_run(state.run, trainer.config, folder)
    resume.require_same_model(trainer.inputs.config, folder)
    trainer.strategy.require_resumable(manifest)
    done = len(state.history)
    where = f"{checkpoint}: step {state.step}, {done} of {epochs} epochs are finished"
    if done >= epochs:
        return f"start:       {where}; the run would end at once; larger --epochs would continue it"
    return f"start:       the run would be resumed from {where}"
