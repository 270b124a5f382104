"""DeepSpeed ZeRO-1, 2 and 3."""

import contextlib
import io
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from lisbet.core.errors import ModelError
from lisbet.distributed import environment
from lisbet.models.multitask import MultiTaskModel
from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.manifest import DEEPSPEED, Manifest
from lisbet.training.datasets.batching import Batching
from lisbet.training.strategies.base import Strategy, WriteState, gathered_weights


class DeepSpeed(Strategy):
    """DeepSpeed, which makes the optimizer step itself in `backward`."""

    form = DEEPSPEED
    writes_on_all = True
    skips_nonfinite = True
    reads_others = False

    @property
    def name(self) -> str:
        """Name of the strategy."""
        return f"DeepSpeed ZeRO-{self.accelerator.state.deepspeed_plugin.zero_stage}"

    def prepare(
        self, model: MultiTaskModel, optimizer: Optimizer, batching: Batching, clip: float | None
    ) -> None:
        """Give model and optimizer to DeepSpeed, with the settings that it cannot find itself."""
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        self.accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": batching.micro_batch_size,
            "gradient_accumulation_steps": batching.gradient_accumulation_steps,
            "gradient_clipping": clip or 0.0,
        }
        super().prepare(model, optimizer, batching, clip)

    def full_weights(self) -> dict[str, Tensor]:
        """Gather the weights."""
        return gathered_weights(self.accelerator, self.model)

    def copy_state(self) -> WriteState:
        """Let DeepSpeed save into memory; every process writes its own files."""
        files = _saved_files(self.model)

        def write(folder: Path, group: ProcessGroup | None) -> list[str]:
            del group
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                with (folder / name).open("wb") as stream:
                    stream.write(content.getbuffer())
            return list(files)

        return write

    def load_state(self, folder: Path, form: str) -> None:
        """Load a state that the same number of processes wrote."""
        assert form == DEEPSPEED
        with restricted.weights_only(deepspeed=True):
            self.model.load_checkpoint(str(folder), tag=DEEPSPEED)

    def clip_gradient(self, clip: float | None) -> Tensor:
        """Return the norm of the gradient.

        DeepSpeed has clipped it and made the step by now, or skipped it, on all processes alike.
        """
        del clip
        norm = self.model.get_global_grad_norm() if self.model.was_step_applied() else math.inf
        return torch.as_tensor(norm, dtype=torch.float32)

    @staticmethod
    def require_loadable(folder: Path, manifest: Manifest) -> None:
        """Check that all files that DeepSpeed would read are listed."""
        for path in (folder / DEEPSPEED).glob("**/*.pt"):  # DeepSpeed reads all that exist
            if path.relative_to(folder).as_posix() not in manifest.files:
                raise ModelError(f"{path} is not in the manifest: it is not part of the checkpoint")

    @staticmethod
    def read_weights(folder: Path) -> dict[str, Tensor]:
        """Read the weights that ZeRO-1 and 2 save whole, and that ZeRO-3 saves in parts."""
        whole = folder / DEEPSPEED / "mp_rank_00_model_states.pt"
        if whole.exists():
            return dict(restricted.load_file(whole, mmap=True)["module"])
        environment.require_deepspeed()
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        with (
            open(os.devnull, "w") as quiet,
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
            restricted.weights_only(deepspeed=True),
        ):
            parts = get_fp32_state_dict_from_zero_checkpoint(
                str(folder), tag=DEEPSPEED, lazy_mode=True
            )
        return {key: part.contiguous() for key, part in parts.items()}


def _saved_files(engine: Any) -> dict[str, io.BytesIO]:
    """Let DeepSpeed save into memory; return what it would have written, by path."""
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

    files: dict[str, io.BytesIO] = {}

    class Memory(TorchCheckpointEngine):  # type: ignore[misc]
        def makedirs(self, path: Any, exist_ok: bool = False) -> None:
            del path, exist_ok

        def save(self, state_dict: Any, path: str) -> None:
            content = io.BytesIO()
            torch.save(state_dict, content)
            files[Path(path).relative_to(folder).as_posix()] = content

    usual = engine.checkpoint_engine
    with tempfile.TemporaryDirectory() as folder:  # for the script that it leaves there
        engine.checkpoint_engine = Memory()
        try:
            engine.save_checkpoint(folder, tag=DEEPSPEED, save_latest=False)
        finally:
            engine.checkpoint_engine = usual
    return files
