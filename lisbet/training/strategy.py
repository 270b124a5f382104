"""What a strategy (one device, DDP, DeepSpeed, FSDP) does differently; the loop knows none of it.

State is kept in one of three forms. ``whole``: one file that any process can read. ``sharded``: a
torch distributed checkpoint, which any number of processes can read. ``deepspeed``: DeepSpeed's own
files, which the same number of processes can read.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from lisbet.training.batching import Batching

WHOLE, SHARDED, DEEPSPEED = "whole", "sharded", "deepspeed"
STATE_FILE = "state.pt"
"""Name of the file of a whole state."""


def name(accelerator: Accelerator) -> str:
    """Name the strategy, for people."""
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return f"DeepSpeed ZeRO-{accelerator.state.deepspeed_plugin.zero_stage}"
    if kind == DistributedType.FSDP:
        return "FSDP2" if accelerator.is_fsdp2 else "FSDP1"
    return "DDP" if accelerator.num_processes > 1 else "one process"


def state_form(accelerator: Accelerator) -> str:
    """Return the form in which this strategy keeps its state."""
    forms = {DistributedType.DEEPSPEED: DEEPSPEED, DistributedType.FSDP: SHARDED}
    return forms.get(accelerator.distributed_type, WHOLE)


def prepare(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    batching: Batching,
    clip_grad_norm: float | None,
) -> tuple[nn.Module, Optimizer]:
    """Give model and optimizer to the strategy."""
    accelerator.gradient_accumulation_steps = batching.passes
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": batching.micro_batch_size,
            "gradient_accumulation_steps": batching.passes,
            "gradient_clipping": clip_grad_norm or 0.0,
        }
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        layers = {type(module).__name__ for module in model.modules()}
        if not layers & set(plugin.transformer_cls_names_to_wrap or ()):
            plugin.auto_wrap_policy = None  # no such layers to split by: as a whole
    prepared: tuple[nn.Module, Optimizer] = accelerator.prepare(model, optimizer)
    return prepared


def full_weights(accelerator: Accelerator, model: nn.Module) -> dict[str, Tensor]:
    """Gather the weights of all processes; complete on the first one. All must call it."""
    weights: dict[str, Tensor] | None = accelerator.get_state_dict(model)
    return weights or {}  # ZeRO-3 gives the others nothing


def save_state(accelerator: Accelerator, model: Any, optimizer: Any, folder: Path) -> None:
    """Write weights and optimizer into a folder. All processes must call it."""
    form = state_form(accelerator)
    if form == DEEPSPEED:
        model.save_checkpoint(str(folder), tag=DEEPSPEED)
        return
    options = StateDictOptions(full_state_dict=form == WHOLE, cpu_offload=True)
    weights, states = get_state_dict(model, optimizer.optimizer, options=options)
    state: dict[str, Any] = {"model": weights, "optimizer": states}
    if form == WHOLE:
        if accelerator.is_main_process:
            torch.save(state, folder / STATE_FILE)
        return
    save(state, checkpoint_id=folder / SHARDED)
