"""What a strategy has to offer to training."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from lisbet.core.errors import ConfigError
from lisbet.models.multitask import MultiTaskModel
from lisbet.training.checkpoint.manifest import Manifest
from lisbet.training.datasets.batching import Batching

WriteState = Callable[[Path, ProcessGroup | None], list[str]]
"""Writes a copied state below a folder.

The processes of a sharded state write together, and communicate over the process group that is the
second argument. It touches nothing that training uses, so that a thread can call it. It returns the
paths, relative to the folder, of the files that this process has written.
"""


class Strategy(ABC):
    """How model and optimizer are distributed over the processes.

    Parameters
    ----------
    accelerator : Accelerator
        The processes.

    Attributes
    ----------
    model, optimizer
        As Accelerate prepared them, after `prepare`.
    network : Module
        The network itself, as it was given to `prepare`.
    """

    form: ClassVar[str]
    """Form in which the state is saved, see `lisbet.training.strategies`."""
    writes_on_all: ClassVar[bool] = False
    """Whether every process writes a part of the state."""
    skips_nonfinite: ClassVar[bool] = False
    """Whether it skips steps with a non-finite gradient itself, and must see all of each step."""

    model: Any
    optimizer: Any
    network: MultiTaskModel

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the strategy, for messages and records."""

    def prepare(
        self, model: MultiTaskModel, optimizer: Optimizer, batching: Batching, clip: float | None
    ) -> None:
        """Distribute model and optimizer; `clip` is the maximum norm of the gradient."""
        del clip
        self.accelerator.gradient_accumulation_steps = batching.gradient_accumulation_steps
        self.network = model
        self.model, self.optimizer = self.accelerator.prepare(
            model, optimizer, device_placement=self._device_placement
        )

    _device_placement: ClassVar[list[bool] | None] = None

    @abstractmethod
    def full_weights(self) -> dict[str, Tensor]:
        """Gather the weights of all processes; complete on the main process. All must call it."""

    @abstractmethod
    def copy_state(self) -> WriteState:
        """Copy this process's part of the state to the host. All processes must call it."""

    @abstractmethod
    def load_state(self, folder: Path, form: str) -> None:
        """Load a state that was written in any form that this strategy can read.

        Nothing in the files is executed, see `lisbet.training.checkpoint.restricted`.
        """

    @abstractmethod
    def clip_gradient(self, clip: float | None) -> Tensor:
        """Return the norm of the accumulated gradient, a scalar, and clip the gradient to `clip`.

        It is the norm before clipping.
        """

    @staticmethod
    @abstractmethod
    def require_loadable(folder: Path, manifest: Manifest) -> None:
        """Check the files of a saved state, without reading tensors.

        Raises
        ------
        ModelError
            Naming the first file that holds anything but tensors and plain values.
        """

    @staticmethod
    @abstractmethod
    def read_weights(folder: Path) -> dict[str, Tensor]:
        """Read the weights of a saved state, on one process."""

    def require_resumable(self, manifest: Manifest) -> None:
        """Refuse a checkpoint that this strategy cannot resume from.

        Raises
        ------
        ConfigError
            With the way out.
        """
        from lisbet.training.strategies import BY_FORM

        was = manifest.strategy, manifest.processes
        now = self.name, self.accelerator.num_processes
        if now != was and not (self.reads_others and BY_FORM[manifest.form].reads_others):
            raise ConfigError(
                f"the checkpoint was written by {was[0]} with {was[1]} processes, and DeepSpeed "
                f"cannot resume from it with {now[0]} and {now[1]} processes. Resume with the "
                "same; or write its weights with betman consolidate_checkpoint and start a new "
                "run from them with --load_backbone_weights"
            )

    reads_others: ClassVar[bool] = True
    """Whether its states and those of other strategies can be exchanged, by any process count."""


def unwrapped(model: Any) -> nn.Module:
    """Return the network itself, without the wrappers of DDP and torch.compile.

    Accelerate's own function for this imports DeepSpeed, if it is installed.
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return cast(nn.Module, model)


COMPILED = "_orig_mod."
"""Prefix of the names of weights in a network that torch.compile has wrapped."""


def gathered_weights(accelerator: Accelerator, model: Any) -> dict[str, Tensor]:
    """Gather sharded weights. ZeRO-3 returns them on the main process only."""
    weights: dict[str, Tensor] | None = accelerator.get_state_dict(model)
    return {name.replace(COMPILED, ""): value for name, value in (weights or {}).items()}
