"""``betman doctor --nodes``: do the processes of a job find each other, and how fast are they."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from lisbet.commands.machine.nodes import network
from lisbet.commands.machine.nodes.all_reduce import Reduction, check_sum, measure
from lisbet.commands.machine.nodes.network import Host
from lisbet.commands.machine.nodes.report import failure_text, missing_text, report
from lisbet.core.errors import ConfigError, ProcessError, ReportedError
from lisbet.distributed import environment
from lisbet.distributed.launch_file import LAUNCHED

PATIENCE_S = 60
"""How long processes wait for each other; LISBET_RENDEZVOUS_S sets another time."""
MEASURING_S = 120
"""Longest time of the measurements."""
LATER_S = 5.0
"""How much longer the others wait than the first process, whose message names the missing ones."""
SETTLE_S = 0.2
"""Gloo's thread needs the interpreter to let go of the last operation."""
HOW = """\
--nodes tests communication between several processes, and this is only one. Start it
- with a batch script of betman slurm_script, on the nodes and in the environment of training:
    TEST_NODES=yes sbatch --time=5 mice.sbatch
- in an allocation of SLURM, from salloc --nodes=2 --ntasks-per-node=1:
    betman doctor --nodes
- on one machine:
    betman doctor --nodes --launch=ddp
- on several machines without SLURM, on each with its own rank:
    betman doctor --nodes --launch=ddp --num_machines=2 --machine_rank=0 --main_process_ip=IP"""


def check_nodes() -> list[str]:
    """Test the processes of this job; return the lines of the report, on the first process.

    One process alone starts others in an allocation of SLURM, which report themselves.

    Raises
    ------
    LisbetError
        Saying which process or variable is the reason, if they do not find each other, or their
        sums are wrong; how to start several, if this is one.
    """
    if environment.count() > 1:
        return _Test().run()
    allocated = "SLURM_JOB_ID" in os.environ and shutil.which("srun") is not None
    if not allocated or LAUNCHED in os.environ:
        raise ConfigError(HOW)
    code = subprocess.run(_srun_words(), check=False).returncode
    if code:
        raise ReportedError(1 if code < 0 else code)
    return []


def _srun_words() -> list[str]:
    """Return the words that start a launcher on each node of the allocation."""
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    cores = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    return ["srun", "--export=ALL", "--kill-on-bad-exit=1", "--overlap", f"--nodes={nodes}",
            f"--ntasks={nodes}", "--ntasks-per-node=1", f"--cpus-per-task={cores}",
            sys.executable, "-m", "lisbet", "doctor", "--nodes", "--launch=ddp"]  # fmt: skip


@dataclass
class _Test:
    """The test, on each of the processes."""

    rank: int = field(default_factory=environment.rank)
    size: int = field(default_factory=environment.count)
    patience: int = field(
        default_factory=lambda: int(os.environ.get("LISBET_RENDEZVOUS_S", PATIENCE_S))
    )

    def run(self) -> list[str]:
        """Meet, add up numbers, measure, and report."""
        began = time.monotonic()
        device = _device()
        backend = dist.get_default_backend_for_device(device)
        name = "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
        own = network.here(self.rank, name, os.environ)
        store = self._store()
        hosts = self._meet(store, own, backend)
        met = time.monotonic() - began
        with tempfile.TemporaryDirectory(prefix="doctor-", ignore_cleanup_errors=True) as folder:
            _let_nccl_log(Path(folder))
            reductions = self._reduce(store, hosts, backend, device)
            transport = network.nccl_transport(
                "\n".join(path.read_text(errors="replace") for path in Path(folder).glob("*.log"))
            )
        used = self._interfaces(store, hosts)
        dist.destroy_process_group()
        if self.rank:
            return []
        return report(hosts, used, backend, met, reductions, transport)

    # Meeting --------------------------------------------------------------------------------------

    def _store(self) -> TCPStore:
        """Connect to the store that the first process, or its launcher, keeps."""
        host, port = _meeting_place()
        mine = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        if not mine:
            _require_reachable(host, port, self.rank, 0.8 * self.patience)
        try:
            return TCPStore(
                host, port, None, mine, timedelta(seconds=self.patience), wait_for_workers=False
            )
        except (dist.DistError, RuntimeError, ValueError) as error:
            raise ProcessError(
                f"process {self.rank} on {socket.gethostname()} cannot use {host}:{port} for the "
                f"meeting ({_first_line(error)}); it must be an address of the machine of process "
                "0, with a free port: --main_process_ip and --main_process_port"
            ) from error

    def _meet(self, store: TCPStore, own: Host, backend: str) -> list[Host]:
        """Tell all others of this machine, and wait for theirs."""
        store.set(f"host/{self.rank}", json.dumps(own.as_dict()))
        if self.rank == 0:
            try:
                hosts = self._all_hosts(store)
                alone = len({host.name for host in hosts}) == 1
                problems = [text for host in hosts for text in host.problems(backend, alone=alone)]
                if problems:
                    raise ProcessError("\n".join(dict.fromkeys(problems)))
            except ProcessError:
                store.set("hosts", "[]")
                time.sleep(SETTLE_S)  # the store ends with this process
                raise
            store.set("hosts", json.dumps([host.as_dict() for host in hosts]))
        try:
            store.wait(["hosts"], timedelta(seconds=self.patience + LATER_S))
            found = [Host(**values) for values in json.loads(store.get("hosts"))]
        except (dist.DistError, RuntimeError) as error:
            raise ReportedError(1) from error
        if not found:
            raise ReportedError(1)
        return found

    def _all_hosts(self, store: TCPStore) -> list[Host]:
        end = time.monotonic() + self.patience
        missing = list(range(self.size))
        while missing := [rank for rank in missing if not store.check([f"host/{rank}"])]:
            if time.monotonic() > end:
                came = [
                    json.loads(store.get(f"host/{rank}"))["name"]
                    for rank in range(self.size)
                    if rank not in missing
                ]
                raise ProcessError(missing_text(missing, came, self.patience))
            time.sleep(0.05)
        return [Host(**json.loads(store.get(f"host/{rank}"))) for rank in range(self.size)]

    # Adding up ------------------------------------------------------------------------------------

    def _reduce(
        self, store: TCPStore, hosts: list[Host], backend: str, device: torch.device
    ) -> list[Reduction]:
        """Form the process group, check a sum, and measure; a hang ends with a message."""
        connection: Any = store
        own = connection.clone()  # this one may be waiting

        def at(stage: str) -> None:
            store.set(f"at/{self.rank}", stage)

        def stuck() -> str:
            ranks = (rank for rank in range(self.size) if own.check([f"at/{rank}"]))
            stages = {rank: own.get(f"at/{rank}").decode() for rank in ranks}
            return failure_text(hosts, backend, stages, f"no answer within {self.patience} s")

        try:
            at("joining")
            with self._time_limit(self.patience, stuck):
                dist.init_process_group(
                    backend, store=PrefixStore("group", store), rank=self.rank,
                    world_size=self.size, timeout=timedelta(seconds=self.patience),
                )  # fmt: skip
                at("adding up the first numbers")
                check_sum(device)
            at("measuring")
            with self._time_limit(MEASURING_S, stuck):
                return measure(device)
        except (dist.DistError, RuntimeError, ValueError) as error:
            text = failure_text(hosts, backend, {self.rank: "adding up"}, _first_line(error))
            raise ProcessError(text) from error

    @contextmanager
    def _time_limit(self, seconds: float, explain: Callable[[], str]) -> Iterator[None]:
        """End this process if a block takes longer: the libraries may wait for ever."""

        def end() -> None:
            if self.rank == 0:
                try:
                    text = explain()
                except RuntimeError:  # the store is gone, and with it the one that keeps it
                    text = f"no answer within {seconds:.0f} s"
                print(f"betman: error: {text}", file=sys.stderr, flush=True)
            os._exit(ProcessError.exit_code)

        timer = threading.Timer(seconds + 2 + (LATER_S if self.rank else 0), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _interfaces(self, store: TCPStore, hosts: list[Host]) -> list[list[str]]:
        """Return, for each process, the interfaces and addresses of its connections."""
        own = hosts[self.rank]
        others = [host for host in hosts if host.name != own.name] or hosts
        remote = {address for host in others for found in host.interfaces.values()
                  for address in found}  # fmt: skip
        used = network.addresses_in_use(remote, _meeting_place()[1])
        said = [f"{own.interface_of(address)} {address}" for address in sorted(used)]
        store.set(f"used/{self.rank}", json.dumps(said))
        keys = [f"used/{rank}" for rank in range(self.size)]
        store.wait(keys, timedelta(seconds=self.patience))
        found = [json.loads(store.get(key)) for key in keys]
        store.add("done", 1)
        while self.rank == 0 and store.add("done", 0) < self.size:  # then the store may end
            time.sleep(0.02)
        time.sleep(SETTLE_S)
        return found


def _device() -> torch.device:
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if on_cpu or not torch.accelerator.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", 0)) % torch.accelerator.device_count()
    torch.accelerator.set_device_index(number)
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return torch.device(kind.type, number)


def _meeting_place() -> tuple[str, int]:
    return os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", 29500))


def _let_nccl_log(folder: Path) -> None:
    """Have NCCL say in a file which network it uses, unless the user has it say something."""
    if "NCCL_DEBUG" not in os.environ:
        os.environ |= {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET",
                       "NCCL_DEBUG_FILE": f"{folder}/%h-%p.log"}  # fmt: skip


def _require_reachable(host: str, port: int, rank: int, patience: float) -> None:
    """Wait until the store of the first process answers; say why it does not."""
    end = time.monotonic() + patience
    while True:
        try:
            with socket.create_connection((host, port), timeout=2):
                return
        except OSError as error:
            reason, unresolved = error, isinstance(error, socket.gaierror)
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    what = (
        f"the name {host} is not known there; pass an IP address, --main_process_ip=ADDRESS"
        if unresolved
        else "is process 0 running, is this an address of its machine, and is there a firewall?"
    )
    raise ProcessError(
        f"process {rank} on {socket.gethostname()} did not reach process 0 at {host}:{port} within "
        f"{patience:.0f} s ({reason}): {what}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
