"""Start a command on several devices: find the launch configuration, hand over to Accelerate."""

import logging
import os
import signal
import socket
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from lisbet.errors import ConfigError, ProcessError, ToldError, unknown
from lisbet.options import LaunchConfigsOptions, LaunchOptions
from lisbet.processes import environment, stop_signals
from lisbet.yaml_files import read_yaml

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
FOLDERS = (PACKAGE / "launch_files", PACKAGE.parent / "launch")
"""Where the configurations lie: in an installed package, and in a checkout."""
ALONE = "NO"
"""The distributed_type of a single process."""
LAUNCHED = "LISBET_LAUNCHED"
"""Set in the processes that a launcher of ours started, which must not start more."""
PORT = 29500
WIDTH = 80


@dataclass(frozen=True)
class Launch:
    """A launch configuration.

    Parameters
    ----------
    path : Path
        Its file, which ``accelerate launch --config_file`` reads as well.
    settings : dict
        What stands in it.
    """

    path: Path
    settings: dict[str, Any]

    @classmethod
    def find(cls, name: str) -> "Launch":
        """Find a configuration by its name, or read one's own by its path.

        Raises
        ------
        ConfigError
            If there is none, or it is none of Accelerate's.
        """
        path = configurations().get(name, Path(name))
        if not path.is_file():
            raise ConfigError(
                f"{unknown('launch configuration', name, configurations())}, or the path of a file"
            )
        settings = read_yaml(path)
        if "distributed_type" not in settings:
            raise ConfigError(
                f"{path} is no configuration of Accelerate: it has no distributed_type; copy and "
                "change one that betman launch_configs lists"
            )
        return cls(path, settings)

    @property
    def is_shipped(self) -> bool:
        """Whether the file is one that comes with the package."""
        return self.path.resolve() in {path.resolve() for path in configurations().values()}

    def processes(
        self, wanted: int | None, machines: int, devices: int, *, on_cpu: bool = False
    ) -> int:
        """Return the number of processes over all machines.

        That is `wanted`, if it is given. A user's own file is followed, up to the number of
        devices. The files of the package name a number for ``accelerate launch`` only: they start
        one process for each visible GPU; without GPUs, their number, up to the number of cores.

        Parameters
        ----------
        wanted : int or None
            The value of ``--num_processes``.
        machines : int
            Number of machines.
        devices : int
            Visible GPUs of each machine; cores if `on_cpu`.
        on_cpu : bool
            Whether the processes run without GPUs.

        Raises
        ------
        ConfigError
            If more were asked for than there are devices, they do not divide among the machines, or
            the file's number is no positive integer.
        """
        most = devices * machines
        if self.settings["distributed_type"] == ALONE:
            if wanted not in (None, 1) or machines > 1:
                raise ConfigError(f"{self.path} is for one process; for several use --launch=ddp")
            return 1
        if wanted is not None and wanted > most:
            raise ConfigError(
                f"--num_processes={wanted}, but there are {devices} devices on each of {machines} "
                f"machines; at most {most} can be used"
            )
        named = most if self.is_shipped and not on_cpu else self.settings.get("num_processes", most)
        if not isinstance(named, int) or named < 1:
            raise ConfigError(f"{self.path}: num_processes is {named!r}; expected a number from 1")
        if wanted is None and named < most and not self.is_shipped:
            log.info("%s starts %d processes on %d devices", self.path, named, most)
        found = min(wanted or named, most)
        if found % machines:
            raise ConfigError(f"--num_processes={found} does not divide among {machines} machines")
        return found


def configurations() -> dict[str, Path]:
    """Return the launch configurations that come with the package, by name."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def launch_configs(options: LaunchConfigsOptions) -> None:
    """Print what there is: each file's first lines say what it does and when to use it."""
    del options
    paths = configurations()
    wide = max(map(len, paths)) + 2
    for name, path in paths.items():
        what, when = (line.lstrip("# ") for line in path.read_text("utf-8").splitlines()[:2])
        indent = " " * wide
        print(textwrap.fill(what, WIDTH, initial_indent=f"{name:{wide}}", subsequent_indent=indent))
        print(textwrap.fill(when, WIDTH, initial_indent=indent, subsequent_indent=indent))
    print(
        f"\nThe files are in {next(iter(paths.values())).parent}; copy one to change it, and pass"
    )
    print("its path: betman train_model --launch=mine.yaml …, or equally")
    print("accelerate launch --config_file mine.yaml -m lisbet train_model …")


def start(name: str, words: list[str], options: LaunchOptions) -> None:
    """Run a command on the processes of a launch configuration, and wait for it.

    Parameters
    ----------
    name : str
        The command.
    words : list of str
        Its options, checked, without those of the launcher.
    options : LaunchOptions
        Where to run it.

    Raises
    ------
    LisbetError
        If it cannot be started, or a process fails.
    """
    assert options.launch is not None
    environment.require_one_launcher()
    launch = Launch.find(options.launch)
    if launch.settings["distributed_type"] == "DEEPSPEED":
        environment.require_deepspeed()
    machines, rank, host, port = _machines(launch, options)
    on_cpu, devices = _devices(launch)
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    processes = launch.processes(options.num_processes, machines, devices, on_cpu=on_cpu)
    port = _free_port(port, machines, rank, wanted=options.main_process_port is not None)
    where = ["--num_processes", processes, "--num_machines", machines, "--machine_rank", rank]
    where += ["--main_process_ip", host, "--main_process_port", port]
    where += ["--rdzv_conf", f"timeout={environment.patience_s()}"]
    log.info(
        "launch:      %s, %d processes on %d machines, meeting at %s:%s",
        launch.path, processes, machines, host, port,
    )  # fmt: skip
    here = max(1, processes // machines)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, environment.cores() // here)))
    if on_cpu and launch.settings["distributed_type"] in (ALONE, "MULTI_GPU"):
        os.environ["ACCELERATE_USE_CPU"] = "true"
    try:
        _accelerate(["--config_file", launch.path, *where, "-m", "lisbet", name, *words], options)
    except RuntimeError as error:  # of torch's store
        raise environment.not_found(processes, f"machine {rank} waited at {host}:{port}", error) \
            from error  # fmt: skip


def _machines(launch: Launch, options: LaunchOptions) -> tuple[int, int, str, int]:
    """Return number of machines, this one's, address and port: as told, or as SLURM tells."""
    settings = launch.settings
    slurm = environment.slurm_machines()
    if options.num_machines is None and slurm is not None:
        machines, rank, host, port = slurm
        return machines, rank, options.main_process_ip or host, options.main_process_port or port
    return (
        options.num_machines or int(settings.get("num_machines") or 1),
        int(settings.get("machine_rank") or 0)
        if options.machine_rank is None
        else options.machine_rank,
        options.main_process_ip or str(settings.get("main_process_ip") or "127.0.0.1"),
        options.main_process_port or int(settings.get("main_process_port") or PORT),
    )


def _devices(launch: Launch) -> tuple[bool, int]:
    """Return whether the processes run on the processor, and for how many this machine is good."""
    # The launcher says in a sentence what torch would say in many; the processes are left alone.
    quiet = os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    import torch

    if quiet == "FATAL":
        os.environ.pop("TORCH_CPP_LOG_LEVEL")
    if not launch.settings.get("use_cpu") and torch.accelerator.is_available():
        return False, torch.accelerator.device_count()
    return True, environment.cores()


def _free_port(port: int, machines: int, rank: int, *, wanted: bool) -> int:
    """Take another port if this one is taken; machines that must agree on it cannot."""
    if rank or _is_free(port):
        return port
    if machines > 1:
        raise ConfigError(
            f"port {port} of this machine is taken; pass another --main_process_port on all "
            "machines"
        )
    with socket.socket() as free:
        free.bind(("", 0))
        other = int(free.getsockname()[1])
    say = log.warning if wanted else log.info
    say("port %d is taken; using %d", port, other)
    return other


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError:
            return False
    return True


def _accelerate(words: list[Any], options: LaunchOptions) -> None:
    """Do as ``accelerate launch`` does, and say in a sentence how the processes ended."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if options.verbose < 2:  # the processes say themselves what is wrong
        for noisy in ("torch.distributed.elastic", "torch.distributed.run"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
    # Passed on, so that the processes save and leave in their own time; torch's launcher would give
    # them 30 s, and Accelerate's for a single process would leave it behind.
    stop_signals.install(_pass_on)
    asked = launch_command_parser().parse_args([str(word) for word in words])
    asked.signals_to_handle = "SIGQUIT"
    os.environ[LAUNCHED] = "1"
    try:
        launch_command(asked)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        _ended(failure.exitcode, f"process {rank} (pid {failure.pid})", error)
    except subprocess.CalledProcessError as error:
        _ended(error.returncode, "the process", error)
    except SignalException as error:
        raise ToldError(128 + error.sigval) from error
    except ValueError as error:
        raise ConfigError(f"{options.launch}: {error}") from error
    except OSError as error:
        raise ProcessError(f"the processes cannot be started: {error}") from error


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Send a signal to the processes of the run."""
    del frame
    for child in psutil.Process().children():
        child.send_signal(number)


def _ended(code: int, who: str, error: Exception) -> None:
    if code > 0:
        raise ToldError(code) from error
    name = signal.Signals(-code).name
    hint = ": often the system's way when memory runs out" if name == "SIGKILL" else ""
    raise ProcessError(
        f"{who} was ended by signal {name}{hint}; all others were stopped"
    ) from error
