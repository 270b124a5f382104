"""Start a command on several devices: find the launch configuration, start the processes.

Torch is not imported here: it takes seconds, and a process that waits for others needs none of it.
"""

import ctypes
import glob
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lisbet.core.errors import ConfigError, ProcessError, ReportedError, unknown
from lisbet.core.json_types import JsonDict
from lisbet.core.yaml_files import read_yaml
from lisbet.distributed import environment, stop_signals
from lisbet.distributed.cores import cores
from lisbet.distributed.launch_file import LAUNCHED
from lisbet.distributed.other_runs import warn_of_other_runs
from lisbet.options import LaunchConfigsOptions, LaunchOptions

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[2]
FOLDERS = (PACKAGE / "launch_files", PACKAGE.parent / "launch")
"""Where the configurations lie: in an installed package, and in a checkout."""
ALONE = "NO"
"""The distributed_type of a single process."""
PORT = 29500
WIDTH = 80
POLL_S = 0.1
"""Time between two looks at the processes."""
GRACE_S = 15.0
"""Time for the others to end after one has failed, before they are killed."""
PR_SET_PDEATHSIG = 1
"""Number of an option of prctl(2)."""
SIGNS = ("/dev/nvidia[0-9]*", "/dev/dxg", "/dev/kfd", "/dev/dri/renderD*", "/dev/accel*",
         "/dev/davinci[0-9]*", "/dev/xpu*")  # fmt: skip
"""Devices of which one is there if a Linux machine has an accelerator."""
COUNT = "import torch; a = torch.accelerator; print(a.device_count() if a.is_available() else 0)"


@dataclass(frozen=True)
class Launch:
    """A launch configuration.

    Parameters
    ----------
    path : Path
        Its file, which ``accelerate launch --config_file`` reads as well.
    settings : dict
        Its contents.
    """

    path: Path
    settings: JsonDict

    @classmethod
    def find(cls, name: str) -> "Launch":
        """Find a configuration by its name, or read one's own by its path.

        Raises
        ------
        ConfigError
            If there is none, or it is none of Accelerate's.
        """
        path = configurations().get(name, Path(name))
        if not path.is_file() and ("/" in name or path.suffix in (".yaml", ".yml")):
            raise ConfigError(
                f"--launch={name}: this file does not exist; give the path of a launch file, or "
                f"one of the names {', '.join(configurations())}"
            )
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
    """List the launch files, with the description in the first lines of each."""
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
    named = options.main_process_port or launch.settings.get("main_process_port")
    if machines > 1 or named:
        port = _free_port(port, machines, rank, wanted=options.main_process_port is not None)
    else:  # one that no other run takes in the seconds until torch uses it
        port = _any_port()
    log.info(
        "launch:      %s, %d processes on %d machines, meeting at %s:%s",
        launch.path, processes, machines, host, port,
    )  # fmt: skip
    here = max(1, processes // machines)
    if on_cpu:
        warn_of_other_runs(cores())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // here)))
    if on_cpu and launch.settings["distributed_type"] in (ALONE, "MULTI_GPU"):
        os.environ["ACCELERATE_USE_CPU"] = "true"
    how = ["--config_file", launch.path, "--num_processes", processes]
    how += ["--num_machines", machines, "--machine_rank", rank, "--main_process_ip", host]
    common = os.environ | {LAUNCHED: json.dumps([str(word) for word in how])}
    if options.verbose < 2:  # what torch says in many lines, betman says in one
        common.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    meeting = {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(processes),
               "LOCAL_WORLD_SIZE": str(here)}  # fmt: skip
    environments = [
        common | meeting | {"RANK": str(rank * here + number), "LOCAL_RANK": str(number)}
        for number in range(here)
    ]
    if launch.settings["distributed_type"] == ALONE:
        environments = [common]
    _run([sys.executable, "-m", "lisbet", name, *words], environments)


def _machines(launch: Launch, options: LaunchOptions) -> tuple[int, int, str, int]:
    """Return number of machines, this one's, address and port: as given, or from SLURM."""
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
    if not launch.settings.get("use_cpu") and (count := _accelerators()):
        return False, count
    return True, cores()


def _accelerators() -> int:
    """Return the number of GPUs, or other accelerators, that torch can use here.

    Where there is a sign of any, a process of its own asks torch.
    """
    signs = (path for pattern in SIGNS for path in glob.iglob(pattern))
    if sys.platform == "linux" and next(signs, None) is None:
        return 0
    asked = subprocess.run(
        [sys.executable, "-c", COUNT], stdout=subprocess.PIPE, text=True, check=False
    )
    if asked.returncode:
        raise ProcessError("the GPUs of this machine cannot be counted: torch cannot be imported")
    return int(asked.stdout.split()[-1])


def _free_port(port: int, machines: int, rank: int, *, wanted: bool) -> int:
    """Take another port if this one is taken; machines that must agree on it cannot."""
    if rank or _is_free(port):
        return port
    if machines > 1:
        raise ConfigError(
            f"port {port} of this machine is taken; pass another --main_process_port on all "
            "machines"
        )
    other = _any_port()
    say = log.warning if wanted else log.info
    say("port %d is taken; using %d", port, other)
    return other


def _any_port() -> int:
    """Return a port that is free now; the system does not choose it again soon."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError:
            return False
    return True


def _run(command: list[str], environments: list[dict[str, str]]) -> None:
    """Start a process with each of the environments; when one fails, the others end, too.

    Raises
    ------
    LisbetError
        With the exit code of the one that failed first, which has said why.
    """
    started: list[subprocess.Popen] = []
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        """Send a signal to the processes, so that they save and leave in their own time."""
        del frame
        asked.append(number)
        for process in started:
            process.send_signal(number)

    stop_signals.install(pass_on)
    try:
        for own in environments:
            process = subprocess.Popen(command, env=own, preexec_fn=_end_with_the_launcher)
            started.append(process)
            for number in asked:  # before it was there
                process.send_signal(number)
        first = _first_failure(started)
        if first is not None:
            _wait_for_all(started, GRACE_S)
    except OSError as error:
        raise ProcessError(f"the processes cannot be started: {error}") from error
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    if first is None:
        return
    rank = environments[first].get("RANK")
    pid, code = started[first].pid, started[first].returncode
    if code > 0:
        raise ReportedError(code)
    name = signal.Signals(-code).name
    who = "the process" if rank is None else f"process {rank} (pid {pid})"
    hint = ": often the system's way when memory runs out" if name == "SIGKILL" else ""
    raise ProcessError(f"{who} was ended by signal {name}{hint}; all others were stopped")


def _first_failure(started: list[subprocess.Popen]) -> int | None:
    """Wait until all processes have ended, or one has failed; return which."""
    while True:
        codes = [process.poll() for process in started]
        failed = [number for number, code in enumerate(codes) if code]
        if failed:
            # Of several at once, one that was ended by a signal took the others along.
            return min(failed, key=lambda number: (codes[number] or 0) > 0)
        if all(code == 0 for code in codes):
            return None
        time.sleep(POLL_S)


def _wait_for_all(started: list[subprocess.Popen], seconds: float) -> None:
    """Wait for processes that end by themselves, as they notice the failure of another one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(process.poll() is None for process in started):
        time.sleep(POLL_S)


def _end_with_the_launcher() -> None:
    """Let the system send this process SIGTERM when the one that started it has been killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
