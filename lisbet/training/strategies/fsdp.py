"""FSDP: every process has a part of the weights, gradients and optimizer state."""

import math
from pathlib import Path

from torch import Tensor
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from lisbet.models.multitask import MultiTaskModel
from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.manifest import SHARDED, STATE_FILE, WHOLE, Manifest
from lisbet.training.datasets.batching import Batching
from lisbet.training.strategies.base import Strategy, WriteState, gathered_weights
from lisbet.training.strategies.replicated import restore_betas


class FSDP(Strategy):
    """FSDP, version 1 or 2.

    `lisbet.training.strategies.sharded` takes a second to import, so it is imported only when a
    state is written or read.
    """

    form = SHARDED
    writes_on_all = True

    @property
    def name(self) -> str:
        """Name of the strategy."""
        return "FSDP2" if self.accelerator.is_fsdp2 else "FSDP1"

    def prepare(
        self, model: MultiTaskModel, optimizer: Optimizer, batching: Batching, clip: float | None
    ) -> None:
        """Shard model and optimizer: layer by layer, if the backbone says which layers.

        Layers that the launch file names come first, if the network has such layers.
        """
        plugin = self.accelerator.state.fsdp_plugin
        layers = {type(module).__name__ for module in model.modules()}
        if not layers & set(plugin.transformer_cls_names_to_wrap or ()):
            plugin.transformer_cls_names_to_wrap = list(model.backbone.fsdp_layers)
            if not model.backbone.fsdp_layers:
                plugin.auto_wrap_policy = None  # shard the network as a whole
        super().prepare(model, optimizer, batching, clip)

    def full_weights(self) -> dict[str, Tensor]:
        """Gather the weights."""
        return gathered_weights(self.accelerator, self.model)

    def copy_state(self) -> WriteState:
        """Copy this process's shard; every process writes its own."""
        from lisbet.training.strategies import sharded

        state = sharded.copied(self.model, self.optimizer.optimizer)
        rank = self.accelerator.process_index

        def write(folder: Path, group: ProcessGroup | None) -> list[str]:
            names = sharded.write(state, folder / SHARDED, group, rank)
            return [f"{SHARDED}/{name}" for name in names]

        return write

    def load_state(self, folder: Path, form: str) -> None:
        """Load a whole or a sharded state, written by any number of processes."""
        from lisbet.training.strategies import sharded

        inner = self.optimizer.optimizer
        whole = restricted.load_file(folder / STATE_FILE, mmap=True) if form == WHOLE else None
        alone = self.accelerator.num_processes == 1
        sharded.load_state(self.model, inner, folder, whole, alone=alone)
        restore_betas(inner)

    def clip_gradient(self, clip: float | None) -> Tensor:
        """Return the norm of the gradient, and clip it."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), clip or math.inf)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    @staticmethod
    def require_loadable(folder: Path, manifest: Manifest) -> None:
        """Check the metadata, and that the shards hold tensors and plain values only."""
        from lisbet.training.strategies import sharded

        restricted.require_listed(folder, manifest, sharded.METADATA)
        sharded.check(folder, manifest)

    @staticmethod
    def read_weights(folder: Path) -> dict[str, Tensor]:
        """Read the weights from the shards."""
        from lisbet.training.strategies import sharded

        return sharded.read_weights(folder)
