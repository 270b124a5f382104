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
ALL = bool(os.environ.get("LISBET_ALL_CRASHES"))
"""Take every point; without it, the suite takes some, spread over all."""
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
           "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT", "FSDP_RESHARD_AFTER_FORWARD": "true",
           "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
           "FSDP_TRANSFORMER_CLS_TO_WRAP": "TransformerEncoderLayer"}  # fmt: skip
"""What Accelerate makes of launch/fsdp.yaml."""
WAYS = {"one process": (1, {}), "FSDP, 2 processes": (2, SHARDED)}

HARNESS = """
import contextlib, ctypes, hashlib, json, os, shutil, signal, socket, sys, traceback
import torch
torch.set_num_threads(1)
from accelerate.state import AcceleratorState
from lisbet.cli import main
import lisbet.training.train, lisbet.training.inputs, lisbet.models.backbones.transformer
import lisbet.data.readers.movement, lisbet.tasks.cons, lisbet.tasks.order, lisbet.tasks.shift
import lisbet.tasks.warp, torch.distributed.checkpoint, scipy.io
crash = ctypes.CDLL(None)
crash.crash_count.restype = ctypes.c_long
base, processes, environment = json.loads(sys.argv[1])
line = [*base, "--run_id=a"]

def run(words, victim=None, number=0, error=0):
    '''Run betman in forked children; return their exit statuses and how many points each passed.'''
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, children = [], []
    for rank in range(processes):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            if processes > 1:
                os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            alone(words, rank, write, number if victim in (None, rank) else None, error)
        os.close(write)
        pipes.append(read)
        children.append(child)
    statuses = {}
    while len(statuses) < processes:
        pid, status = os.waitpid(-1, 0)
        statuses[children.index(pid)] = status
        if status and os.WIFSIGNALED(status):  # as a launcher does; it need not find out by itself
            for rank in set(range(processes)) - set(statuses):
                os.kill(children[rank], signal.SIGKILL)
    passed = [int(os.read(read, 64) or 0) for read in pipes]
    for read in pipes:
        os.close(read)
    return [statuses[rank] for rank in range(processes)], passed

def alone(words, rank, write, number, error):
    os.dup2(os.open(f"said{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
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

def said():
    return "".join(open(f"said{rank}").read() for rank in range(processes))

def left():
    '''Hash what a finished run must leave.'''
    names = ["weights/weights_last.pt", "training_history.csv", "sample_hashes.csv"]
    newest = "checkpoints/" + max(os.listdir("models/a/checkpoints"))
    manifest = json.load(open(f"models/a/{newest}/manifest.json"))
    names += [f"{newest}/{n}" for n in manifest["files"] if n.endswith((".pt", ".distcp"))]
    found = {n: hashlib.sha256(open(f"models/a/{n}", "rb").read()).hexdigest() for n in names}
    strays = [n for _, folders, files in os.walk("models") for n in folders + files
              if n[0] == "." and n not in (".metadata", ".lisbet.jsonl")]
    return found | {"strays": strays}

def answer(**values):
    print(json.dumps(values), flush=True)

with contextlib.redirect_stdout(sys.stderr):
    before = dict(os.environ)
    main([*base, "--run_id=warm"])  # everything is imported by then
os.environ.clear()
os.environ.update(before)
AcceleratorState._reset_state(reset_partial_state=True)
shutil.rmtree("models")
statuses, points = run(line)
assert not any(statuses), said()
whole = left()
answer(points=points)
os.rename("models", "before")

def weights(place):
    path = f"models/{place}/weights/weights_last.pt"
    return hashlib.sha256(open(path, "rb").read()).hexdigest() if os.path.exists(path) else None

for order in sys.stdin:
    victim, number, error, replace = map(int, order.split())
    shutil.rmtree("models", ignore_errors=True)
    words = line
    if replace:  # a model of another seed, with a file of somebody else beside it
        shutil.copytree("before", "models")
        open("models/a/notes.txt", "w").write("mine")
        words = [*line, "--seed=2", "--overwrite"]
    statuses, passed = run(words, victim, number, error)
    first = said()
    models = [weights("a"), weights(".a.replaced")] if replace else []
    kept = os.listdir("models/a/checkpoints") if os.path.isdir("models/a/checkpoints") else []
    again, _ = run(words if replace else [*line, "--resume"])
    found = {} if any(again) else left()
    if replace and number == 0:
        replaced = found
    same = found == (replaced if replace else whole)
    if replace:
        old = whole["weights/weights_last.pt"]
        same = same and open("models/a/notes.txt").read() == "mine" and any(models) and (
            old in models or models[0] is not None)
    answer(victim=victim, number=number, status=statuses[victim], same=same, said=first,
           more="" if same else f"{again} {said()} {found} {models}", points=passed,
           kept=[name for name in kept if name.startswith("step_")])
"""


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

    def __init__(self, place: Path, library: Path, processes: int, environment: dict) -> None:
        write_dataset(place / "data", [40, 50, 45, 40])
        self.process = subprocess.Popen(
            [sys.executable, "-c", HARNESS, json.dumps([LINE, processes, environment])],
            cwd=place, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        counts = self.answer()["points"]
        self.points = [(rank, n) for rank, most in enumerate(counts) for n in range(1, most + 1)]

    def answer(self) -> dict:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def run(self, victim: int, number: int, error: int = 0, *, replace: bool = False) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{victim} {number} {error} {int(replace)}\n")
        self.process.stdin.flush()
        return self.answer()

    def chosen(self, most: int, of_all: int | None = None) -> list[tuple[int, int]]:
        """Take about `most` points; with LISBET_ALL_CRASHES `of_all`, or every one."""
        if ALL:
            most = of_all or len(self.points)
        return self.points[:: max(1, -(-len(self.points) // most))]


@pytest.fixture(scope="module", params=WAYS)
def harness(request, tmp_path_factory, crash):
    harness = Harness(tmp_path_factory.mktemp("run"), crash, *WAYS[request.param])
    yield request.param, harness
    harness.process.kill()
    harness.process.communicate()


def test_a_kill_at_any_write_is_survived(harness):
    way, runs = harness
    assert len(runs.points) > 60
    # Two processes take seconds to start, so that all of their points would take hours.
    chosen = runs.chosen(100) if way == "one process" else runs.chosen(5, of_all=60)
    results = [runs.run(*point) for point in chosen]
    print(f"{way}: {len(results)} of {len(runs.points)} points, "
          f"{sum(result['same'] for result in results)} survived")  # fmt: skip
    bad = [result for result in results if not result["same"]]
    assert not bad, json.dumps(bad, indent=1)
    assert {result["status"] for result in results} == {9}


def test_a_kill_while_a_model_is_replaced_loses_neither(harness):
    """At each write there is the old model or the new one, and what is not ours."""
    way, runs = harness
    if way != "one process":
        pytest.skip("the first process alone replaces")
    untouched = runs.run(0, 0, replace=True)
    assert untouched["same"], untouched
    points = range(1, untouched["points"][0] + 1)
    chosen = points if ALL else points[:: -(-len(points) // 24)]
    results = [runs.run(0, number, replace=True) for number in chosen]
    print(f"{len(results)} of {len(points)} points, {sum(r['same'] for r in results)} survived")
    bad = [result for result in results if not result["same"]]
    assert not bad, json.dumps(bad, indent=1)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.ESTALE])
def test_an_error_at_any_write_is_one_message(harness, error):
    """A full or broken disk, a read-only one, a network file system that lost its server."""
    way, runs = harness
    for point in runs.chosen(8) if way == "one process" else runs.chosen(1, of_all=10):
        result = runs.run(*point, error)
        assert result["same"], result
        assert "Traceback" not in result["said"], result
        if result["status"]:  # some calls may fail, such as removing what is already replaced
            assert result["status"] == 2 << 8, result
            assert result["said"].count("betman: error") == 1, result
            assert os.strerror(error) in result["said"], result
            assert "models" in result["said"], result
