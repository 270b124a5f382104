"""``betman doctor``: will training work here, and what to do if not."""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.text import Text

from lisbet.commands.machine.nodes.check import check_nodes
from lisbet.distributed import environment
from lisbet.distributed.cores import cores
from lisbet.distributed.memory import available_memory
from lisbet.options import DoctorOptions

OK, NOTE, BAD = "ok", "note", "bad"
SPACE_GB, LEAST_SPACE_GB, SLOW_MB_S, SHARED_MB = 5.0, 0.5, 50.0, 64.0
PROBE_MB = 32
PATIENCE_S = 60
"""Two processes import torch meanwhile: on a busy login node that takes long."""
REDUCE = """
import sys, datetime, torch, torch.distributed as dist
backend, rank, size, store = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
device = f"cuda:{rank}" if backend == "nccl" else "cpu"
dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=size,
                        timeout=datetime.timedelta(seconds=50))
value = torch.full((1,), float(rank + 1), device=device)
dist.all_reduce(value)
assert value.item() == size * (size + 1) / 2, value
dist.destroy_process_group()
"""


@dataclass(frozen=True)
class Finding:
    """What was found, how it is, and what to do about it.

    Parameters
    ----------
    level : str
        "ok", "note" or "bad".
    what, text : str
        What was looked at, and what was found.
    advice : str
        What to do; empty where nothing is to be done.
    """

    level: str
    what: str
    text: str
    advice: str = ""


def doctor(options: DoctorOptions) -> None:
    """Print the findings; end with code 1 if something would keep training from working."""
    if options.nodes:
        print("\n".join(check_nodes()), end="\n" if environment.rank() == 0 else "")
        return
    if environment.rank():
        return  # of several processes, the first one does it alone
    environment.leave_others()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    worst = False
    for finding in examine(options.output_path):
        worst |= finding.level == BAD
        style = {OK: "green", NOTE: "yellow", BAD: "bold red"}[finding.level]
        line = Text.assemble((f"{finding.level:5}", style), f"{finding.what + ':':15} ")
        console.print(line + Text(finding.text), soft_wrap=True)
        if finding.advice:
            console.print(f"{'':21}→ {finding.advice}", soft_wrap=True)
    if worst:
        sys.exit(1)


def examine(place: Path) -> Iterator[Finding]:
    """Look at this machine, one thing after the other; what fails is a finding, too."""
    reductions = _Reductions()  # they take seconds: started first, looked at last
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("versions", versions),
        ("devices", devices),
        ("memory", memory),
        ("shared memory", shared_memory),
        ("disk space", lambda: space(place)),
        ("disk speed", lambda: speed(place)),
        ("file locks", lambda: locks(place)),
        ("caches", caches),
        ("container", container),
        ("SLURM", slurm),
        ("W&B", wandb_login),
        ("communication", reductions.finding),
    ]
    for what, check in checks:
        try:
            yield check()
        except OSError as error:
            yield Finding(BAD, what, str(error), "choose another --output_path, or fix this")


def versions() -> Finding:
    """Name the versions of the packages that training needs."""
    found = [f"python {platform.python_version()}"]
    for name in ("lisbet", "torch", "accelerate", "numpy", "deepspeed", "wandb", "tensorboard"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    advice = ""
    if "no deepspeed" in found:
        advice = "deepspeed_* launch configurations need: pip install 'lisbet[deepspeed]'"
    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10)
    if old:
        advice = "earlier releases of torch than 2.10 have holes in loading weights: upgrade it"
    return Finding(BAD if old else OK, "versions", ", ".join(found), advice)


def devices() -> Finding:
    """Name the GPUs, or report that there are none."""
    count = torch.cuda.device_count()
    if torch.cuda.is_available():
        names = [
            f"{torch.cuda.get_device_name(n)} "
            f"({torch.cuda.get_device_properties(n).total_memory / 2**30:.0f} GiB)"
            for n in range(count)
        ]
        advice = "--launch=ddp uses all of them" if count > 1 else ""
        return Finding(OK, "devices", ", ".join(names), advice)
    found = f"no GPU, {cores()} cores"
    if shutil.which("nvidia-smi"):
        return Finding(
            NOTE, "devices", f"{found}, but there is nvidia-smi",
            "this torch does not see the GPU: install the build for its driver, see pytorch.org; "
            "in a container add --nv (Apptainer) or --gpus all (Docker)",
        )  # fmt: skip
    return Finding(OK, "devices", found, "training works, and is slow for more than a trial")


def memory() -> Finding:
    """Tell how much memory is free, within the limits of a job or container."""
    found, free = psutil.virtual_memory(), available_memory()
    text = f"{free / 2**30:.1f} of {found.total / 2**30:.1f} GiB free"
    if free < 0.9 * found.available:
        text += (
            f" (the machine has {found.available / 2**30:.1f} GiB free; this job, container or "
            "shell is limited to less)"
        )
    if free < 2 * 2**30:
        return Finding(NOTE, "memory", text, "close other programs, or ask the queue for more")
    return Finding(OK, "memory", text)


def shared_memory() -> Finding:
    """Tell how large /dev/shm is: processes and NCCL exchange data through it."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding(NOTE, "shared memory", "there is no /dev/shm")
    free = shutil.disk_usage(place).free / 2**20
    text = f"{free:.0f} MiB free in {place}"
    if free < SHARED_MB:
        return Finding(
            NOTE, "shared memory", text,
            "too small for several GPUs: docker run --shm-size=1g, or NCCL_SHM_DISABLE=1",
        )  # fmt: skip
    return Finding(OK, "shared memory", text)


def space(place: Path) -> Finding:
    """Report the free space for models."""
    free = shutil.disk_usage(_there(place)).free / 1e9
    text = f"{free:.1f} GB free in {place.absolute()}"
    if free < LEAST_SPACE_GB:
        return Finding(BAD, "disk space", text, "free some, or choose another --output_path")
    if free < SPACE_GB:
        return Finding(NOTE, "disk space", text, "--keep_checkpoints=1 takes less")
    return Finding(OK, "disk space", text)


def speed(place: Path) -> Finding:
    """Write, and wait until it is on the disk, as a checkpoint is."""
    data = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=_there(place), prefix=".doctor-") as stream:
        started = time.perf_counter()
        for _ in range(PROBE_MB):
            stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
        rate = PROBE_MB / (time.perf_counter() - started)
    text = f"{rate:.0f} MiB/s written and synced"
    if rate < SLOW_MB_S:
        return Finding(
            NOTE, "disk speed", text,
            "checkpoints will take long: use a scratch disk, or --checkpoint_every=30min",
        )  # fmt: skip
    return Finding(OK, "disk speed", text)


def locks(place: Path) -> Finding:
    """See whether a lock on a file keeps another one out."""
    with (
        tempfile.NamedTemporaryFile(dir=_there(place), prefix=".doctor-") as one,
        open(one.name, "rb") as other,
    ):
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Finding(
                NOTE, "file locks", f"not here ({error.strerror})",
                "training does not need them; HDF5 does: set HDF5_USE_FILE_LOCKING=FALSE",
            )  # fmt: skip
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Finding(OK, "file locks", "work")
    return Finding(NOTE, "file locks", "are granted twice: this file system ignores them")


def caches() -> Finding:
    """See whether the libraries can keep what they keep."""
    home = Path.home()
    cache = Path(os.environ.get("XDG_CACHE_HOME", home / ".cache"))
    wanted = {
        "HF_HOME": cache / "huggingface",
        "MPLCONFIGDIR": Path(os.environ.get("XDG_CONFIG_HOME", home / ".config")) / "matplotlib",
        "TRITON_CACHE_DIR": home / ".triton",
        "TMPDIR": Path(tempfile.gettempdir()),
    }
    closed = {
        name: place
        for name, default in wanted.items()
        if not os.access(_there(place := Path(os.environ.get(name, default))), os.W_OK)
    }
    if closed:
        said = ", ".join(f"{place} ({name})" for name, place in closed.items())
        return Finding(NOTE, "caches", f"cannot be written: {said}", "set these to a scratch disk")
    return Finding(OK, "caches", "can be written")


def container() -> Finding:
    """Tell whether this is a container."""
    env = os.environ
    kinds = {
        "Apptainer": "APPTAINER_CONTAINER" in env or "SINGULARITY_CONTAINER" in env,
        "Docker": Path("/.dockerenv").exists(),
        "Podman": Path("/run/.containerenv").exists(),
    }
    for kind, is_so in kinds.items():
        if is_so:
            advice = "" if torch.cuda.is_available() else "a GPU needs --nv, or --gpus all"
            return Finding(OK, "container", kind, advice)
    return Finding(OK, "container", "none")


def slurm() -> Finding:
    """Tell whether this is a cluster with SLURM."""
    env = os.environ
    if "SLURM_JOB_ID" in env:
        given = env.get("SLURM_CPUS_PER_TASK", "?")
        return Finding(
            OK, "SLURM", f"job {env['SLURM_JOB_ID']} on {env.get('SLURM_JOB_NODELIST')}, "
            f"{given} cores for each task", "requeued jobs resume with --resume and a --run_id",
        )  # fmt: skip
    if shutil.which("sbatch"):
        return Finding(OK, "SLURM", "is here; this is no job", "run this in a job as well")
    return Finding(OK, "SLURM", "none")


def wandb_login() -> Finding:
    """Tell whether W&B could be used, without asking its server."""
    try:
        version("wandb")
    except PackageNotFoundError:
        return Finding(OK, "W&B", "not installed", "pip install wandb, for --wandb")
    netrc = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    known = netrc.is_file() and "wandb" in netrc.read_text("utf-8", errors="replace")
    if os.environ.get("WANDB_API_KEY") or known:
        return Finding(OK, "W&B", "has a login")
    return Finding(
        OK, "W&B", "no login: --wandb writes offline files", "wandb login, or set WANDB_API_KEY"
    )


class _Reductions:
    """Two processes that add their numbers up, as training does with gradients."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="doctor-")
        self.folder = Path(self._place.name)
        self.started = time.monotonic()
        self.jobs = {"gloo": self._start("gloo", 2)}
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if gpus:
            self.jobs["nccl"] = self._start("nccl", min(2, gpus))

    def _start(self, backend: str, size: int) -> list[subprocess.Popen]:
        store = self.folder / backend
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return [
            subprocess.Popen(
                [sys.executable, "-c", REDUCE, backend, str(rank), str(size), str(store)],
                env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(size)
        ]  # fmt: skip

    def finding(self) -> Finding:
        """Return how they came out."""
        fine, failed = [], {}
        for backend, jobs in self.jobs.items():
            for job in jobs:
                try:
                    left = PATIENCE_S - (time.monotonic() - self.started)
                    _, said = job.communicate(timeout=max(1.0, left))
                except subprocess.TimeoutExpired:
                    job.kill()
                    _, said = job.communicate()
                    said = said or f"no answer within {PATIENCE_S} s"
                if job.returncode:
                    failed[backend] = (said.strip() or "killed").splitlines()[-1][:200]
            if backend not in failed:
                fine.append(f"{backend} among {len(jobs)}")
        self._place.cleanup()
        if failed:
            text = "; ".join(f"{backend} failed: {said}" for backend, said in failed.items())
            return Finding(
                BAD, "communication", text,
                "name the network interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME); "
                "NCCL_DEBUG=INFO says more. One process works without: leave --launch out",
            )  # fmt: skip
        return Finding(OK, "communication", f"{', '.join(fine)} processes work")


def _there(place: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    there = place.absolute()
    while not there.exists():
        there = there.parent
    return there
