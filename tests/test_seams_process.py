"""Processes, signals, closed output, and other systems than Linux."""

import contextlib
import errno
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import TINY, child_processes, write_dataset

from lisbet.cli import main, parse
from lisbet.cli.output import GuardedStream
from lisbet.commands.machine import launch
from lisbet.core.errors import ConfigError, ProcessError, ReportedError, StoppedError
from lisbet.distributed import environment, machine, stop_signals
from lisbet.distributed.cores import cores
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.datasets import banks
from lisbet.training.stopping import StopSignal
from lisbet.training.trainer import Trainer

LINE = ["train_model", *TINY, "--warmup_epochs=0", "--task_ids=order", "--epochs=1", "--run_id=a"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_dataset(tmp_path / "data", [60, 60])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights() -> Path:
    return Path("models/a/weights/weights_last.pt")


# Number of processes ---------------------------------------------------------------------------


@pytest.fixture
def devices(monkeypatch):
    """Pretend that this machine has so many GPUs; returns how many processes are started."""
    given: list[list[dict]] = []
    monkeypatch.setattr(launch, "_run", lambda command, environments: given.append(environments))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")

    def started(count: int, *words: str) -> int:
        monkeypatch.setattr(launch, "_accelerators", lambda: count)
        job = parse(["train_model", *words, "data"])
        assert job is not None
        job.run()
        environments = given.pop()
        ranks = [int(own.get("RANK", 0)) for own in environments]
        assert ranks == list(range(ranks[0], ranks[0] + len(ranks)))
        assert ranks[0] % len(ranks) == 0
        return int(environments[0].get("WORLD_SIZE", 1))

    return started


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed_zero2"])
@pytest.mark.parametrize("count", [1, 4, 8, 16])
def test_a_shipped_configuration_starts_one_process_for_each_gpu(count, name, devices):
    pytest.importorskip("deepspeed") if name.startswith("deepspeed") else None
    assert devices(count, f"--launch={name}") == count
    two = ["--num_machines=2", "--machine_rank=1", "--main_process_ip=127.0.0.1"]
    assert devices(count, f"--launch={name}", *two) == 2 * count
    assert devices(count, f"--launch={name}", "--num_processes=1") == 1


def test_the_path_of_a_shipped_configuration_is_the_same_one(devices):
    assert devices(16, f"--launch={launch.configurations()['ddp']}") == 16


def test_without_gpus_a_shipped_configuration_names_the_most(devices, monkeypatch):
    monkeypatch.setattr(launch, "cores", lambda: 64)
    assert devices(0, "--launch=ddp") == 8
    monkeypatch.setattr(launch, "cores", lambda: 3)
    assert devices(0, "--launch=ddp") == 3


@pytest.mark.parametrize(("count", "number", "expected"), [(4, 8, 4), (16, 8, 8), (16, None, 16)])
def test_an_own_configuration_is_followed_up_to_the_devices(
    count, number, expected, devices, tmp_path
):
    own = tmp_path / "own.yaml"
    named = "" if number is None else f"num_processes: {number}\n"
    own.write_text(f"distributed_type: MULTI_GPU\n{named}")
    assert devices(count, f"--launch={own}") == expected


@pytest.mark.parametrize("number", ["0", "-1", "many", "2.5"])
def test_an_own_configuration_with_a_wrong_number_is_refused(number, devices, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(f"distributed_type: MULTI_GPU\nnum_processes: {number}\n")
    with pytest.raises(ConfigError, match="num_processes is"):
        devices(4, f"--launch={own}")


# Signals ---------------------------------------------------------------------------------------


@pytest.fixture
def hangup():
    """The default action of SIGHUP, which the tests inherit as ignored if nohup started them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_a_signal_saves_and_stops(name, place, hangup, monkeypatch, capsys):
    made = Trainer.train_step

    def train_step(trainer):
        made(trainer)
        if trainer.step == 2:
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(getattr(signal, name))
    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(SystemExit) as caught:
        main([*LINE, "data"])
    assert caught.value.code == 75
    assert f"stopped by {name} after step 2, saved" in capsys.readouterr().err
    assert [folder.name for folder in CheckpointDirectory(Path("models/a")).published()] == [
        "step_00000002"
    ]
    assert signal.getsignal(getattr(signal, name)) == before


def test_before_the_first_step_a_signal_writes_nothing(hangup):
    with pytest.raises(StoppedError, match="stopped by SIGHUP before the first step"), StopSignal():
        os.kill(os.getpid(), signal.SIGHUP)


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stops:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert not stops.reason
            assert signal.getsignal(signal.SIGUSR2) == stops._receive
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def handlers():
    """Start with the system's handlers, of which nohup ignores one; put back what was there."""
    numbers = [getattr(signal, name) for name in stop_signals.NAMES]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", stop_signals.NAMES)
def test_the_launcher_hands_signals_on(name, handlers):
    program = (
        f"import signal, time; signal.signal(signal.{name}, lambda *_: exit(7)); time.sleep(20)"
    )
    threading.Timer(1, os.kill, (os.getpid(), getattr(signal, name))).start()
    with pytest.raises(ReportedError) as caught:
        launch._run([sys.executable, "-c", program], [dict(os.environ)])
    assert caught.value.exit_code == 7


def test_the_launcher_stops_all_when_one_is_killed(monkeypatch, handlers):
    monkeypatch.setattr(launch, "GRACE_S", 0.5)
    program = (
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)"
    )
    environments = [{**os.environ, "RANK": str(rank)} for rank in range(3)]
    before = child_processes()
    said = r"process 1 \(pid \d+\) was ended by signal SIGKILL"
    with pytest.raises(ProcessError, match=said):
        launch._run([sys.executable, "-c", program], environments)
    assert child_processes() <= before


def test_the_launcher_imports_no_torch(place):
    program = (
        "import sys; from lisbet.cli import main;"
        "main(['train_model', *sys.argv[1:]]); assert 'torch' not in sys.modules;"
        "assert 'accelerate' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *LINE[1:], "--launch=ddp", "--num_processes=2",
         "data"], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert weights().is_file()


def test_ddp_saves_when_its_launcher_gets_sigusr2(place):
    line = [word for word in LINE if word != "--epochs=1"]
    command = [*line, "--epochs=100000", "--checkpoint_every=2steps", "--launch=ddp",
               "--num_processes=2", "data"]  # fmt: skip
    job = subprocess.Popen(
        [sys.executable, "-m", "lisbet", *command], stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if CheckpointDirectory(Path("models/a")).published() or job.poll() is not None:
            break
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR2)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 75, said
    assert "stopped by SIGUSR2 after step" in said


# Output that is closed -------------------------------------------------------------------------


@contextlib.contextmanager
def without_reader(monkeypatch, *names: str):
    """Let sys.stdout or sys.stderr be pipes that nobody reads; after it they can be flushed."""
    with contextlib.ExitStack() as opened, monkeypatch.context() as patched:
        for name in names:
            reader, writer = os.pipe()
            os.close(reader)
            patched.setattr(sys, name, opened.enter_context(os.fdopen(writer, "w")))
        yield


def test_training_goes_on_without_a_reader(place, monkeypatch):
    with without_reader(monkeypatch, "stdout", "stderr"):
        before = sys.stdout, sys.stderr
        main([*LINE, "-v", "data"])
        assert (sys.stdout, sys.stderr) == before
    assert weights().exists()


def test_training_goes_on_when_its_terminal_is_gone(place, monkeypatch):
    master, slave = pty.openpty()
    terminal = os.fdopen(slave, "w")
    made = Trainer.train_step

    def train_step(trainer):
        made(trainer)
        if trainer.step == 2:
            os.close(master)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        patched.setattr(sys, "stderr", terminal)
        main([*LINE, "-v", "data"])
    terminal.close()
    assert weights().exists()


def test_an_error_keeps_its_exit_code_without_a_reader(place, monkeypatch):
    with without_reader(monkeypatch, "stderr"), pytest.raises(SystemExit) as caught:
        main([*LINE, "nowhere"])
    assert caught.value.code == 2


@pytest.mark.parametrize("words", [["runs", "."], ["--help"], ["launch_configs"]])
def test_other_commands_end_as_by_sigpipe(words, place, monkeypatch, capsys):
    with without_reader(monkeypatch, "stdout"), pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 141
    assert not capsys.readouterr().err


def test_standard_files_that_are_closed_from_the_start(place):
    """Files that the run opens must not get their numbers."""
    script = f"{sys.executable} -m lisbet {' '.join(LINE)} -v data <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], check=False, timeout=120).returncode == 0
    assert weights().exists()


def test_a_character_that_cannot_be_written_is_an_error(tmp_path):
    with (tmp_path / "file").open("w", encoding="ascii") as stream:
        guarded = GuardedStream(stream, required=False)
        with pytest.raises(UnicodeEncodeError):
            guarded.write("×")
        assert guarded.write("x\n") == 2


# Other systems ---------------------------------------------------------------------------------


def test_windows_is_refused_with_what_to_use(monkeypatch, capsys):
    monkeypatch.setattr(environment.sys, "platform", "win32")
    for words in (["train_model", "data"], ["runs"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert "WSL2" in capsys.readouterr().err
    for words in (["--version"], ["--help"], ["train_model", "--help"]):
        main(words)
    assert "betman" in capsys.readouterr().out


def test_shared_memory_without_linux(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(banks, "SHARED_MEMORY", tmp_path / "no-such-folder")
    monkeypatch.setattr(machine, "ZEROS", 1000)
    path = banks._shared_file(2500)
    assert path.read_bytes() == bytes(2500)
    assert path.stat().st_blocks * 512 >= 2500
    path.unlink()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_reserve(number, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", refuse(number))
    path = banks._shared_file(10)
    assert path.read_bytes() == bytes(10)
    path.unlink()


def test_too_little_shared_memory_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOSPC))
    monkeypatch.setattr(banks, "SHARED_MEMORY", tmp_path)
    with pytest.raises(OSError, match="No space left"):
        banks._shared_file(10)
    assert not list(tmp_path.iterdir())


def refuse(number: int):
    def posix_fallocate(handle, start, size):
        raise OSError(number, os.strerror(number))

    return posix_fallocate


def test_cores_without_affinity(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores(tmp_path, tmp_path / "none", {}) == 6
