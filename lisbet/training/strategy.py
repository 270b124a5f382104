"""What a strategy (one device, DDP, DeepSpeed, FSDP) does differently; the loop knows none of it.

State is kept in one of three forms. ``whole``: one file that any process can read. ``sharded``: a
torch distributed checkpoint, which any number of processes can read. ``deepspeed``: DeepSpeed's own
files, which the same number of processes can read.
"""

import copy
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from lisbet.model_dir import save_tensors
from lisbet.training import restricted
from lisbet.training.batching import Batching
from lisbet.training.manifest import DEEPSPEED, SHARDED, STATE_FILE, WHOLE

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
    prepared: tuple[nn.Module, Optimizer] = accelerator.prepare(model, optimizer)
    return prepared


def full_weights(accelerator: Accelerator, model: nn.Module) -> dict[str, Tensor]:
    """Gather the weights of all processes; complete on the first one. All must call it."""
    weights: dict[str, Tensor] | None = accelerator.get_state_dict(model)
    # ZeRO-3 gives the others nothing. torch.compile wraps the network, which prefixes the names.
    return {name.replace(COMPILED, ""): value for name, value in (weights or {}).items()}


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
        state = _copied(model, optimizer, StateDictOptions(cpu_offload=True))

        def write(folder: Path, group: Any) -> list[str]:
            rank = accelerator.process_index
            names = _write_shards(state, folder / SHARDED, group, rank)
            return [f"{SHARDED}/{name}" for name in names]

    else:
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = _copied(model, optimizer, whole)

        def write(folder: Path, group: Any) -> list[str]:
            del group
            save_tensors(state, folder / STATE_FILE)
            return [STATE_FILE]

    return write


def _copied(model: Any, optimizer: Any, options: StateDictOptions) -> dict[str, Any]:
    inner = optimizer.optimizer
    if not inner.state:  # no step was made; asked for its state, torch would make one
        return copy.deepcopy({"model": get_model_state_dict(model, options=options)})
    weights, states = get_state_dict(model, inner, options=options)
    # On a CPU nothing was offloaded: what is here are the tensors that training changes.
    return copy.deepcopy({"model": weights, "optimizer": states})


def _write_shards(state: dict[str, Any], folder: Path, group: Any, rank: int) -> list[str]:
    """Write a distributed checkpoint with the other processes; return the files of this one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it writes on a single process
            save(state, checkpoint_id=folder, process_group=group, no_dist=group is None)
    except CheckpointException as error:  # the failures of all processes, by number
        causes = [cause for cause, _ in error.failures.values()]
        raise next((c for c in causes if isinstance(c, OSError)), error) from error
    # PyTorch before 2.13 does not return which files it wrote; they are named by rank.
    own = sorted(path.name for path in folder.glob(f"__{rank}_*"))
    return [*own, ".metadata"] if rank == 0 else own


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
    if form == WHOLE:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = restricted.load_file(folder / STATE_FILE, mmap=True)
        if "optimizer" not in state:
            set_model_state_dict(model, state["model"], options=options)
            return
    else:
        options = StateDictOptions()
        weights, states = get_state_dict(model, inner, options=options)
        state = {"model": weights, "optimizer": states}
        reader = restricted.Reader(folder)
        try:
            with restricted.weights_only(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that it reads on a single process
                load(state, storage_reader=reader, no_dist=accelerator.num_processes == 1)
        except CheckpointException as error:
            raise restricted.unreadable(folder, error) from error
    set_state_dict(
        model,
        inner,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=options,
    )
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
    norm = accelerator.clip_grad_norm_(model.parameters(), clip or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
