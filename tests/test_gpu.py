"""What needs a CUDA device."""

import pytest
import torch
from conftest import TINY

from lisbet.cli import main
from lisbet.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    "words", [[], ["--task_ids=kinematics", "--condition_input"]], ids=["four tasks", "kinematics"]
)
def test_no_step_waits_for_the_gpu(dataset, tmp_path, monkeypatch, words):
    """Between two checks of the losses, see CHECK_EVERY, the host only queues work."""
    monkeypatch.chdir(tmp_path)
    train_step = Trainer.train_step
    checked = []

    def strict(self):
        if self.step >= 2:  # the first steps allocate and choose kernels
            torch.cuda.set_sync_debug_mode("error")
            checked.append(self.step)
        try:
            train_step(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "train_step", strict)
    augmentation = "all_perm_id:p=0.5,rotation:p=0.5,gauss_jitter:p=0.5"
    main(["train_model", *TINY, "--epochs=1", "--log_every=1000", "--run_id=a",
          f"--data_augmentation={augmentation}", *words, "data"])  # fmt: skip
    assert checked


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_training_on_a_gpu(dataset, tmp_path, monkeypatch, precision):
    monkeypatch.chdir(tmp_path)
    main(["train_model", *TINY, "--epochs=1", "--run_id=a", f"--mixed_precision={precision}",
          "data"])  # fmt: skip
    weights = torch.load("models/a/weights/weights_last.pt", weights_only=True)
    assert all(values.isfinite().all() and not values.is_cuda for values in weights.values())
