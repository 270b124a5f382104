"""One process, or DDP: every process has the whole model."""

import math
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from lisbet.models.model_dir import save_tensors
from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.manifest import STATE_FILE, WHOLE, Manifest
from lisbet.training.strategies.base import Strategy, WriteState, unwrapped


class Replicated(Strategy):
    """One process, or DDP."""

    form = WHOLE
    # Without it, Accelerate imports torch.distributed.tensor to find out whether it may.
    _device_placement: ClassVar[list[bool] | None] = [True, True]

    @property
    def name(self) -> str:
        """Name of the strategy."""
        return "DDP" if self.accelerator.num_processes > 1 else "one process"

    def full_weights(self) -> dict[str, Tensor]:
        """Return the weights."""
        return dict(unwrapped(self.model).state_dict())

    def copy_state(self) -> WriteState:
        """Copy the state to the host; the main process writes it."""
        state = _copied(unwrapped(self.model), self.optimizer.optimizer)

        def write(folder: Path, group: ProcessGroup | None) -> list[str]:
            del group
            save_tensors(state, folder / STATE_FILE)
            return [STATE_FILE]

        return write

    def load_state(self, folder: Path, form: str) -> None:
        """Load a whole or a sharded state."""
        inner = self.optimizer.optimizer
        if form == WHOLE:
            state = restricted.load_file(folder / STATE_FILE, mmap=True)
            _load(unwrapped(self.model), inner, state)
        else:
            from lisbet.training.strategies import sharded  # takes a second to import

            alone = self.accelerator.num_processes == 1
            sharded.load_state(self.model, inner, folder, None, alone=alone)
        restore_betas(inner)

    def clip_gradient(self, clip: float | None) -> Tensor:
        """Return the norm of the gradient, and clip it.

        Accelerate's own function imports torch.distributed.tensor.
        """
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients()
        return nn.utils.clip_grad_norm_(self.model.parameters(), clip or math.inf)

    @staticmethod
    def require_loadable(folder: Path, manifest: Manifest) -> None:
        """Check the file of the state."""
        restricted.require_listed(folder, manifest, STATE_FILE)

    @staticmethod
    def read_weights(folder: Path) -> dict[str, Tensor]:
        """Read the weights."""
        return dict(restricted.load_file(folder / STATE_FILE, mmap=True)["model"])


def restore_betas(optimizer: Optimizer) -> None:
    """Make the betas of AdamW a tuple again: saving turned them into a list."""
    for group in optimizer.param_groups:
        group["betas"] = tuple(group["betas"])


def _copied(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Copy weights and optimizer to the host, as `torch.distributed.checkpoint` names them.

    The optimizer numbers the weights; there they have their names, so that a sharded strategy can
    read the state as well.
    """
    copied: dict[str, Any] = {"model": _to_host(model.state_dict())}
    if optimizer.state:  # else no step was made
        names = {id(weight): name for name, weight in model.named_parameters()}
        copied["optimizer"] = {
            "state": {names[id(w)]: _to_host(state) for w, state in optimizer.state.items()},
            "param_groups": [
                group | {"params": [names[id(weight)] for weight in group["params"]]}
                for group in optimizer.param_groups
            ],
        }
    return copied


def _to_host(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
        for key, value in values.items()
    }


def _load(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load what `_copied` has copied."""
    model.load_state_dict(state["model"])
    if "optimizer" not in state:
        return
    saved = state["optimizer"]
    names = [name for group in saved["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [
        group | {"params": [numbers[name] for name in group["params"]]}
        for group in saved["param_groups"]
    ]
    states = {numbers[name]: values for name, values in saved["state"].items()}
    optimizer.load_state_dict({"state": states, "param_groups": groups})
