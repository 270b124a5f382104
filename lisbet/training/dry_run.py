"""``train_model --dry_run``: say what the run would do, and write nothing."""

from pathlib import Path

from lisbet.training.checkpoint import resume
from lisbet.training.checkpoint.manifest import Manifest
from lisbet.training.checkpoint.writer import read_progress
from lisbet.training.run import Run


def describe_start(run: Run, checkpoint: Path | None) -> str:
    """Check what a run would start from, as the run itself would, and describe it.

    Parameters
    ----------
    run : Run
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
    folder, epochs = run.folder, run.options.epochs
    if checkpoint is None:
        if run.options.resume:
            if resume.finished_without_checkpoint(folder, run.config, epochs):
                return f"start:       {folder} is finished; its checkpoints were removed"
            return f"start:       {folder} has no checkpoint, the run would start anew"
        return f"start:       a new run, {folder}"
    manifest = Manifest.read(checkpoint)
    progress, _ = read_progress(checkpoint)
    resume.require_same_run(progress.run, run.config, folder)
    resume.require_same_strategy(manifest, run.accelerator)
    done = len(progress.history)
    where = f"{checkpoint}: step {progress.step}, {done} of {epochs} epochs are finished"
    if done >= epochs:
        return f"start:       {where}; the run would end at once, more --epochs would train on"
    return f"start:       the run would be resumed from {where}"
