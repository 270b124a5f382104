"""A SLURM cluster of two nodes on this machine: each in a network, host and process namespace."""

import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

NEEDS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "ip", "nsenter", "unshare")
INSTALL = "apt-get install slurm-wlm munge iproute2"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PATIENCE_S = 400
CONFIGURATION = """\
ClusterName=lisbet
SlurmctldHost=n1
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=10
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
NodeName=n[1-2] CPUs=4 RealMemory=4000 Gres=gpu:2
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1
PartitionName=high Nodes=n[1-2] PriorityTier=10
"""
WITHIN = 'mount --bind {hosts} /etc/hosts && hostname {name} && exec "$@"'


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    if lacking := [name for name in NEEDS if not shutil.which(name, path=PATH)]:
        return f"{', '.join(lacking)} missing: {INSTALL}"
    if os.geteuid():
        return "a cluster of namespaces needs root"
    tried = subprocess.run(["unshare", "-n", "-m", "-u", "-p", "--fork", "true"],
                           capture_output=True, check=False)  # fmt: skip
    return "" if tried.returncode == 0 else "this machine does not allow namespaces"


class Cluster:
    """Starts in about a second, and takes everything with it when it ends."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.tag = f"lsl{os.getpid() % 10000}"
        self.daemons: list[subprocess.Popen] = []
        tools = f"{Path(sys.executable).parent}:{PATH}"
        self.environment = {**os.environ, "PATH": tools, "SLURM_CONF": str(place / "slurm.conf")}

    def __enter__(self) -> "Cluster":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self.daemons):
            daemon.kill()
            daemon.wait()
        for node in ("n1", "n2"):
            subprocess.run(["ip", "netns", "delete", self._space(node)], capture_output=True,
                           check=False)  # fmt: skip

    def _space(self, node: str) -> str:
        return f"{self.tag}-{node}"

    def _start(self) -> None:
        place = self.place
        (place / "state").mkdir()
        (place / "slurm.conf").write_text(CONFIGURATION.format(place=place))
        for device in ("gpu0", "gpu1"):
            os.mknod(place / device, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # as /dev/null
        (place / "gres.conf").write_text(f"Name=gpu File={place}/gpu[0-1]\n")
        # A host knows itself by its own address only, as on a cluster.
        (place / "hosts").write_text("127.0.0.1 localhost\n10.78.0.1 n1\n10.78.0.2 n2\n")
        self._join_hosts()
        key = place / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self._daemon(["munged", "--foreground", "--force", f"--key-file={key}",
                      f"--socket={place}/munge.socket", f"--pid-file={place}/munge.pid",
                      f"--seed-file={place}/munge.seed",
                      f"--log-file={place}/munge.log"])  # fmt: skip
        self._until(lambda: (place / "munge.socket").exists(), "munged")
        self._daemon([*self._on("n1", alone=True), "slurmctld", "-D", "-i"])
        for node in ("n1", "n2"):
            self._daemon([*self._on(node, alone=True), "slurmd", "-D", "-N", node])
        self._until(lambda: self.run("sinfo", "-h", "-o", "%T %D", check=False).strip()
                    .splitlines()[:1] == ["idle 2"], "the nodes")  # fmt: skip

    def _join_hosts(self) -> None:
        def ip(*words: str) -> None:
            subprocess.run(["ip", *words], check=True, capture_output=True)

        for node in ("n1", "n2"):
            ip("netns", "add", self._space(node))
        ip("link", "add", f"{self.tag}a", "type", "veth", "peer", "name", f"{self.tag}b")
        for number, (node, end) in enumerate((("n1", "a"), ("n2", "b")), start=1):
            ip("link", "set", f"{self.tag}{end}", "netns", self._space(node))
            ip("-n", self._space(node), "addr", "add", f"10.78.0.{number}/24", "dev",
               f"{self.tag}{end}")  # fmt: skip
            for device in (f"{self.tag}{end}", "lo"):
                ip("-n", self._space(node), "link", "set", device, "up")

    def _on(self, node: str, *, alone: bool = False) -> list[str]:
        """Words before a command that runs on a node; `alone` with processes of its own."""
        apart = ["-p", "--fork", "--kill-child", "--mount-proc"] if alone else []
        inside = WITHIN.format(hosts=self.place / "hosts", name=node)
        return ["nsenter", f"--net=/run/netns/{self._space(node)}", "unshare", "-m", "-u", *apart,
                "sh", "-c", inside, "sh"]  # fmt: skip

    def _daemon(self, words: list[str]) -> None:
        with (self.place / "daemons.log").open("a") as log:
            self.daemons.append(subprocess.Popen(words, env=self.environment, stdout=log,
                                                 stderr=log))  # fmt: skip

    def _until(self, is_so, what: str) -> None:
        for _ in range(200):
            if is_so():
                return
            time.sleep(0.05)
        logs = "\n".join(path.read_text(errors="replace")[-3000:]
                         for path in self.place.glob("*.log"))  # fmt: skip
        raise AssertionError(f"{what} did not come\n{logs}")

    # What a user types ------------------------------------------------------------------------

    def run(self, *words: str, cwd: Path | None = None, check: bool = True, **more: str) -> str:
        """Run a command of SLURM on the first node; return what it says."""
        done = subprocess.run([*self._on("n1"), *words], cwd=cwd, capture_output=True, text=True,
                              env={**self.environment, **more}, check=False)  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *words: str, cwd: Path, **more: str) -> str:
        """Submit a job; return its number."""
        return self.run("sbatch", "--parsable", *words, cwd=cwd, **more).strip()

    def job(self, number: str) -> dict[str, str]:
        """What SLURM says of a job."""
        said = self.run("scontrol", "show", "job", number)
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def wait(self, number: str, *states: str, log: Path | None = None) -> dict[str, str]:
        """Wait until a job is in one of these states; a requeued one starts without its delay."""
        hurried = {"0"}
        for _ in range(5 * PATIENCE_S):
            found = self.job(number)
            if found["JobState"] in states:
                return found
            over = found["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
            said = log.read_text() if log and log.exists() else ""
            assert not over, f"{found}\n{said}"
            if found["JobState"] == "PENDING" and found["Restarts"] not in hurried:
                # Not at once: a node takes what starts in the same second for what it just ended.
                hurried.add(found["Restarts"])
                self.run("scontrol", "update", f"JobId={number}", "StartTime=now+3")
            time.sleep(0.2)
        raise AssertionError(f"job {number} does not come to {states}: {found}\n{said}")
