"""What a strategy (one device, DDP, DeepSpeed, FSDP) does differently; the loop knows none of it.

State is kept in one of three forms. ``whole``: one file that any process can read. ``sharded``: a
torch distributed checkpoint, which any number of processes can read. ``deepspeed``: DeepSpeed's own
files, which the same number of processes can read.
"""

import io
import logging
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.optim import Optimizer

from lisbet.models.model_dir import save_tensors
from lisbet.training.checkpoint import restricted
from lisbet.training.checkpoint.manifest import DEEPSPEED, SHARDED, STATE_FILE, WHOLE
from lisbet.training.datasets.batching import Batching

COMPILED = "_orig_mod."
"""Prefix of the names of weights in a network that torch.compile has wrapped."""


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
    # Left to itself, Accelerate imports torch.distributed.tensor to find out whether it may.
    placed = [True, True] if state_form(accelerator) == WHOLE else None
    prepared: tuple[nn.Module, Optimizer] = accelerator.prepare(
        model, optimizer, device_placement=placed
    )
    return prepared


def full_weights(accelerator: Accelerator, model: nn.Module) -> dict[str, Tensor]:
    """Gather the weights of all processes; complete on the first one. All must call it."""
    if state_form(accelerator) == WHOLE:
        return dict(_bare(model).state_dict())
    weights: dict[str, Tensor] | None = accelerator.get_state_dict(model)
    # ZeRO-3 gives the others nothing. torch.compile wraps the network, which prefixes the names.
    return {name.replace(COMPILED, ""): value for name, value in (weights or {}).items()}


def _bare(model: Any) -> nn.Module:
    """Return the network itself, without what DDP and torch.compile have put around it.

    Accelerate's own function for this imports DeepSpeed, if it is installed.
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return cast(nn.Module, model)


def snapshot(
    accelerator: Accelerator, model: Any, optimizer: Any
) -> Callable[[Path, Any], list[str]]:
    """Copy this process's part of weights and optimizer to the host. All processes must call it.

    Returns
    -------
    callable
        Writes the copy below a folder; the processes of a sharded state write together, and talk
        over the process group that is its second argument. It touches nothing that training uses.
        It returns the paths, relative to the folder, of the files that this process has written.
    """
    form = state_form(accelerator)
    if form == DEEPSPEED:
        files = _deepspeed_files(model)

        def write(folder: Path, group: Any) -> list[str]:
            del group
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                with (folder / name).open("wb") as stream:
                    stream.write(content.getbuffer())
            return list(files)

    elif form == SHARDED:
        from lisbet.training.strategies import sharded

        state = sharded.copied(model, optimizer.optimizer)

        def write(folder: Path, group: Any) -> list[str]:
            rank = accelerator.process_index
            names = sharded.write(state, folder / SHARDED, group, rank)
            return [f"{SHARDED}/{name}" for name in names]

    else:
        state = _whole_state(_bare(model), optimizer.optimizer)

        def write(folder: Path, group: Any) -> list[str]:
            del group
            save_tensors(state, folder / STATE_FILE)
            return [STATE_FILE]

    return write


def _whole_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
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


def _load_whole_state(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load what `_whole_state` has copied."""
    model.load_state_dict(state["model"])
    if "optimizer" not in state:
        return
    kept = state["optimizer"]
    names = [name for group in kept["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [
        group | {"params": [numbers[name] for name in group["params"]]}
        for group in kept["param_groups"]
    ]
    states = {numbers[name]: values for name, values in kept["state"].items()}
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _deepspeed_files(engine: Any) -> dict[str, io.BytesIO]:
    """Let DeepSpeed save into memory: what it would have written, by path."""
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

    files: dict[str, io.BytesIO] = {}

    class Memory(TorchCheckpointEngine):  # type: ignore[misc]
        def makedirs(self, path: Any, exist_ok: bool = False) -> None:
            del path, exist_ok

        def save(self, state_dict: Any, path: str) -> None:
            content = io.BytesIO()
            torch.save(state_dict, content)
            files[Path(path).relative_to(place).as_posix()] = content

    usual = engine.checkpoint_engine
    with tempfile.TemporaryDirectory() as place:  # for the script that it leaves beside
        engine.checkpoint_engine = Memory()
        try:
            engine.save_checkpoint(place, tag=DEEPSPEED, save_latest=False)
        finally:
            engine.checkpoint_engine = usual
    return files


def load_state(
    accelerator: Accelerator, model: Any, optimizer: Any, folder: Path, form: str
) -> None:
    """Take up weights and optimizer, written in any form that this strategy can read.

    Nothing in the files is run, see `restricted`.
    """
    if form == DEEPSPEED:
        with restricted.weights_only(deepspeed=True):
            model.load_checkpoint(str(folder), tag=DEEPSPEED)
        return
    inner = optimizer.optimizer
    whole = restricted.load_file(folder / STATE_FILE, mmap=True) if form == WHOLE else None
    if whole is not None and state_form(accelerator) == WHOLE:
        _load_whole_state(_bare(model), inner, whole)
    else:
        from lisbet.training.strategies import sharded

        alone = accelerator.num_processes == 1
        sharded.load_state(model, inner, folder, whole, alone=alone)
    for group in inner.param_groups:  # as AdamW made it; on the way it became a list
        group["betas"] = tuple(group["betas"])


def drops_bad_steps(accelerator: Accelerator) -> bool:
    """Whether the strategy itself leaves out steps whose gradient is not finite.

    DeepSpeed does, and must then see all of a step: what was accumulated is dropped with it.
    """
    return bool(accelerator.distributed_type == DistributedType.DEEPSPEED)


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def learning_rate(optimizer: Any) -> float:
    """Return the learning rate that was set last."""
    return float(optimizer.param_groups[0]["lr"])


def gradient_norm(accelerator: Accelerator, model: Any, clip: float | None) -> Tensor:
    """Return the norm of the gradient of a step that is accumulated, and clip it.

    DeepSpeed has clipped it and made the step by then, or left it out, on all processes alike.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        norm = model.get_global_grad_norm() if model.was_step_applied() else math.inf
        return torch.as_tensor(norm, dtype=torch.float32)
    if state_form(accelerator) == WHOLE:  # Accelerate would import torch.distributed.tensor
        if accelerator.scaler is not None:
            accelerator.unscale_gradients()
        return nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
