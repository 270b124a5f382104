"""Kill a run at every call that changes a file below its folder: what is left goes on.

The calls are counted in the C library, so that none is forgotten: see crash.c. Runs are forked from
one process that has imported everything, which makes a run a matter of tenths of a second.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, write_dataset

HERE = Path(__file__).parent
LINE = ["train_model", *TINY, "--epochs=2", "--train_sample=0.2", "--warmup_epochs=0",
        "--save_history", "--hash_samples", "--checkpoint_every=1steps", "--dev_ratio=0.5",
        "--dev_sample=0.1", "data"]  # fmt: skip
IN_SUITE = 200
"""Points that the suite kills at, spread over all; LISBET_ALL_CRASHES=1 takes every one."""

HARNESS = '''
import contextlib, ctypes, hashlib, json, os, shutil, sys, traceback
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from lisbet.cli import main
import lisbet.training.loop, lisbet.training.setup, lisbet.models.backbones.transformer
import lisbet.data.readers.movement, lisbet.tasks.cons, lisbet.tasks.order, lisbet.tasks.shift
import lisbet.tasks.warp, torch.distributed.checkpoint, scipy.io
crash = ctypes.CDLL(None)
crash.crash_count.restype = ctypes.c_long
base = json.loads({line!r})
line = [*base, "--run_id=a"]

def forked(words, number=None, error=0):
    """Run betman in a child; return its exit status and how many points it passed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open("said", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        os.dup2(2, 1)
        if number is not None:
            crash.crash_arm(os.path.abspath("models").encode(), ctypes.c_long(number), error)
        try:
            main(words)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 99
        count = crash.crash_count()
        crash.crash_arm(b"", ctypes.c_long(0), 0)
        os.write(write, str(count).encode())
        sys.stdout.flush()
        os._exit(code)
    os.close(write)
    passed = os.read(read, 64)
    os.close(read)
    return os.waitpid(child, 0)[1], int(passed or 0)

def left():
    """Hash what a finished run must leave."""
    found = {{}}
    for name in ("weights/weights_last.pt", "training_history.csv", "sample_hashes.csv"):
        found[name] = hashlib.sha256(open("models/a/" + name, "rb").read()).hexdigest()
    newest = max(os.listdir("models/a/checkpoints"))
    for name in ("state.pt", "metrics.pt"):
        path = f"models/a/checkpoints/{{newest}}/{{name}}"
        found[name] = hashlib.sha256(open(path, "rb").read()).hexdigest()
    strays = [n for _, folders, files in os.walk("models") for n in folders + files if n[0] == "."]
    return found | {{"strays": strays}}

def main_program():
    with contextlib.redirect_stdout(sys.stderr):
        main([*base, "--run_id=warm"])  # everything is imported by then
    shutil.rmtree("models")
    status, points = forked(line, 0)
    assert status == 0, open("said").read()
    whole = left()
    print(json.dumps({{"points": points}}), flush=True)
    for order in sys.stdin:
        number, error = map(int, order.split())
        shutil.rmtree("models")
        status, _ = forked(line, number, error)
        said = open("said").read()
        kept = os.listdir("models/a/checkpoints") if os.path.isdir("models/a/checkpoints") else []
        kept = [name for name in kept if name.startswith("step_")]
        again, _ = forked([*line, "--resume"])
        found = left() if again == 0 else {{}}
        same = found == whole
        more = "" if same else f"{{again}} {{open('said').read()}} {{found}} {{whole}}"
        print(json.dumps({{"number": number, "status": status, "same": same, "said": said,
                           "more": more, "kept": kept}}), flush=True)

main_program()
'''


@pytest.fixture(scope="module")
def crash(tmp_path_factory) -> Path:
    """The library that counts and kills."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("counting system calls needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("crash") / "crash.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "crash.c", "-ldl"], check=True
    )
    return library


class Harness:
    """A process that runs training again and again, each time with another fault."""

    def __init__(self, place: Path, library: Path) -> None:
        write_dataset(place / "data", [40, 50, 45, 40])
        code = HARNESS.format(tests=str(HERE), line=json.dumps(LINE))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=place, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.points = self.answer()["points"]

    def answer(self) -> dict:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def run(self, number: int, error: int = 0) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number} {error}\n")
        self.process.stdin.flush()
        return self.answer()


@pytest.fixture(scope="module")
def harness(tmp_path_factory, crash):
    harness = Harness(tmp_path_factory.mktemp("run"), crash)
    yield harness
    harness.process.kill()
    harness.process.communicate()


def chosen(points: int, most: int) -> list[int]:
    if os.environ.get("LISBET_ALL_CRASHES"):
        return list(range(1, points + 1))
    return sorted({1 + round(n * (points - 1) / (most - 1)) for n in range(most)})


def test_a_kill_at_any_write_is_survived(harness):
    assert harness.points > 60
    numbers = chosen(harness.points, IN_SUITE)
    results = [harness.run(number) for number in numbers]
    print(f"{len(results)} of {harness.points} points, "
          f"{sum(result['same'] for result in results)} survived")  # fmt: skip
    bad = [result for result in results if not result["same"]]
    assert not bad, json.dumps(bad, indent=1)
    assert {result["status"] for result in results} == {9}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.ESTALE])
def test_an_error_at_any_write_is_one_message(harness, error):
    """A full or broken disk, a read-only one, a network file system that lost its server."""
    for number in chosen(harness.points, 16):
        result = harness.run(number, error)
        assert result["same"], result
        assert "Traceback" not in result["said"], result
        if result["status"]:  # some calls may fail, such as removing what is already replaced
            assert result["status"] == 2 << 8, result
            assert os.strerror(error) in result["said"], result
            assert "models" in result["said"], result
