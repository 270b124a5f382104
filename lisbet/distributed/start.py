"""Start the processes of a run, on every strategy that a launch file can ask for."""

import os
import socket
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from lisbet.core.errors import ConfigError, ProcessError
from lisbet.core.json_types import JsonDict
from lisbet.distributed import environment
from lisbet.distributed.compiler import can_compile
from lisbet.distributed.cores import cores
from lisbet.distributed.launch_file import follow

COLLECTIVE = timedelta(minutes=30)
"""How long one process waits for another in training: reading and writing happen in between."""


def start(
    mixed_precision: str | None = None, *, sharded: bool = True, compiled: bool = False
) -> Accelerator:
    """Find the other processes, if there are any, and return what holds them together.

    Parameters
    ----------
    mixed_precision : str, optional
        "no", "bf16", "fp16", or "best" for the best of the device; None leaves it to the launch
        file.
    sharded : bool
        Whether a sharded strategy is honoured. Applying a model needs none.
    compiled : bool
        Whether to compile the network with torch.compile; without, a launch file decides. Where
        that does not work, a warning says why, and the network is not compiled.

    Raises
    ------
    ConfigError
        If launch file and options contradict each other, or this machine lacks what they ask for.
    ProcessError
        If the processes do not find each other.
    """
    follow()
    if not sharded:
        for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
            os.environ.pop(name, None)
    deepspeed, fsdp = (_flag(f"ACCELERATE_USE_{name}") for name in ("DEEPSPEED", "FSDP"))
    if deepspeed:
        environment.require_deepspeed()
    if environment.count() == 1 and (deepspeed or fsdp):
        _stand_alone()
    on_cpu = _flag("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    chosen = _precision(mixed_precision, cuda=not on_cpu and torch.cuda.is_available())
    _set_threads()
    if environment.count() > 1 or deepspeed or fsdp:
        _enough_devices(on_cpu)
        _meet("gloo" if on_cpu else _backend(fsdp))
    if deepspeed or fsdp:
        os.environ.pop("ACCELERATE_USE_CPU", None)  # with it, Accelerate forgets the strategy
    if on_cpu:
        _use_cpu(deepspeed=deepspeed, fsdp=fsdp)
    options: JsonDict = {"step_scheduler_with_optimizer": False, "mixed_precision": chosen}
    device = torch.device("cpu") if on_cpu else torch.accelerator.current_accelerator()
    if compiled and device is not None and can_compile(device):
        options["dynamo_backend"] = "inductor"
    if deepspeed:
        options |= {"deepspeed_plugin": _deepspeed(chosen, on_cpu), "mixed_precision": "no"}
        options["kwargs_handlers"] = [InitProcessGroupKwargs(backend="gloo")] if on_cpu else []
    accelerator = Accelerator(**options)
    _require_as_asked(accelerator, deepspeed=deepspeed, fsdp=fsdp, sharded=sharded)
    return accelerator


def _require_as_asked(
    accelerator: Accelerator, *, deepspeed: bool, fsdp: bool, sharded: bool
) -> None:
    """Raise if the processes are not those that the launcher was asked for."""
    wanted = {deepspeed: DistributedType.DEEPSPEED, fsdp: DistributedType.FSDP}.get(True)
    if wanted is not None and accelerator.distributed_type != wanted:
        raise ProcessError(f"asked for {wanted.value}, got {accelerator.distributed_type.value}")
    if sharded and accelerator.state.dynamo_plugin.use_regional_compilation:  # for training
        raise ConfigError(
            "regional compilation (dynamo_use_regional_compilation in the launch file, or "
            "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION) cannot compile this network; remove it: "
            "the whole network is then compiled"
        )
    if accelerator.num_processes != environment.count():
        raise ProcessError(
            f"the launcher started {environment.count()} processes, but each of them is alone; "
            "start them with betman --launch, accelerate launch or torchrun"
        )


def _set_threads() -> None:
    """Let each process compute with its part of the cores that this job may use."""
    if environment.local_count() > 1:
        # Launchers set 1, whatever the cores; without any, Accelerate would.
        os.environ.setdefault("OMP_NUM_THREADS", str(environment.threads()))
        torch.set_num_threads(environment.threads())
    elif "OMP_NUM_THREADS" not in os.environ:  # torch counts cores that it may not use
        torch.set_num_threads(min(torch.get_num_threads(), environment.threads()))


def _use_cpu(*, deepspeed: bool, fsdp: bool) -> None:
    """Let Accelerate compute on the CPU with the strategy of the launch file."""
    if fsdp:
        # Accelerate shards on accelerators only; believing that these are, it also does on CPUs.
        PartialState(backend="gloo")
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    elif not deepspeed:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # Accelerate imports DeepSpeed if it can


def mixed_precision_of(accelerator: Accelerator) -> str:
    """Return the arithmetic of the network; DeepSpeed keeps it in its own configuration."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        autocast = accelerator.state.deepspeed_plugin.deepspeed_config.get("torch_autocast", {})
        return {"bfloat16": "bf16", "float16": "fp16"}.get(autocast.get("dtype"), "no")
    return str(accelerator.mixed_precision)


def _precision(wanted: str | None, *, cuda: bool) -> str:
    """Resolve the option and the launch file, which must not contradict each other."""
    launched = os.environ.pop("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("no", "bf16", "fp16"):
        raise ConfigError(
            f"the launch file asks for mixed precision {launched}; expected no, bf16 or fp16"
        )
    if wanted == "best":
        wanted = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if cuda else "no"
    if launched != "no" and wanted not in (None, launched):
        raise ConfigError(
            f"--mixed_precision={wanted} contradicts the launch file, which says {launched}; "
            "write 'no' there to leave it to the option"
        )
    if (chosen := wanted or launched) == "fp16" and not cuda:  # it would silently be float32
        if wanted == "fp16":
            raise ConfigError(
                "--mixed_precision=fp16 needs a GPU, and there is none; use bf16 or no"
            )
        raise ConfigError(
            "the launch file asks for mixed precision fp16, which needs a GPU, and there is none; "
            "write 'bf16' or 'no' there"
        )
    return chosen


def _enough_devices(on_cpu: bool) -> None:
    """Refuse more processes than devices: they would take each other's memory."""
    devices = cores() if on_cpu else torch.accelerator.device_count()
    bound = "SLURM_STEP_NUM_TASKS" in os.environ and devices == 1  # srun gave each task its own
    if environment.local_count() > devices and not bound:
        what = "cores" if on_cpu else "devices"
        raise ConfigError(
            f"{environment.local_count()} processes on a machine of {devices} {what}; start at "
            f"most {devices} with --num_processes (torchrun: --nproc_per_node)"
        )


def _backend(fsdp: bool) -> str:
    """Return the backend of this machine's devices; sharded weights are gathered on the host."""
    device = torch.accelerator.current_accelerator()
    assert device is not None
    backend = dist.get_default_backend_for_device(device)
    return f"cpu:gloo,{device.type}:{backend}" if fsdp else backend


def _stand_alone() -> None:
    """Give a single process what a sharded strategy expects of its launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}
    for name, value in {**alone, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        os.environ.setdefault(name, str(value))


def _meet(backend: str) -> None:
    """Form the process group within a time limit; the error names what to check."""
    limit = environment.patience_s()
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if backend != "gloo":
        torch.accelerator.set_device_index(
            int(os.environ["LOCAL_RANK"]) % torch.accelerator.device_count()
        )
    try:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=limit)))
        # A launcher keeps its store when it starts the processes again.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = PrefixStore(f"lisbet/{attempt}", store)
        _count_in(store, size, limit)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=COLLECTIVE
        )
    except (dist.DistStoreError, dist.DistNetworkError, ValueError, OSError) as error:
        where = f"process {environment.rank()} waited at {where}"
        raise environment.not_found(environment.count(), where, error) from error


def _count_in(store: Store, size: int, limit: int) -> None:
    """Wait for everyone: a launcher's store answers before all have come."""
    if store.add("arrived", 1) == size:
        store.set("complete", "1")
    for second in range(limit):  # in slices: signals are answered in between
        try:
            return store.wait(["complete"], timedelta(seconds=1))
        except dist.DistStoreError:
            if second == limit - 1:
                raise
    return None


def _deepspeed(precision: str, on_cpu: bool) -> DeepSpeedPlugin:
    """Make Accelerate's plug-in from what the launch file left in the environment."""
    # DeepSpeed calls collectives by names that PyTorch has since changed, each time with a warning.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if on_cpu:
        import deepspeed

        # gloo does as well; this one would be compiled for a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Accelerate would fill in 1 from the environment, whatever the batches turn out to be.
    os.environ.pop("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", None)
    plugin = _Plugin()
    plugin.deepspeed_config.pop("gradient_accumulation_steps", None)
    if precision != "no":
        # Casting the model instead would leave bf16 weights where float32 ones are documented.
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[precision]
        plugin.deepspeed_config["torch_autocast"] = {"enabled": True, "dtype": dtype}
    return plugin


class _Plugin(DeepSpeedPlugin):  # type: ignore[misc]
    def set_deepspeed_weakref(self) -> None:
        """Register with transformers, which is not used here."""
        self.dschf = None


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
