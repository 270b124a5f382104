"""Measure from embeddings to motifs: time and peak memory, compared with the published tool.

    python benchmarks/motifs.py [--frames 1000000] [--dims 64] [--recordings 10] [--states 2:8]
                                [--iterations 5] [--jobs 1] [--published published_venv]

Both tools run through their commands on the same random embeddings, one after the other: hidden
Markov models with the same seed, then prototypes of the motifs of each. Time is that of all cores
together (user and system), because it changes less on a busy machine, and elapsed. Memory is the
largest sum over all processes of a command (PSS: shared memory counts once), libraries included.
Without --published (a virtual environment that holds the published tool, see published.py) only
betman is measured. `states that agree` is the share of frames in which both tools found the
same state; the published tool takes recordings in the order of the file system, on which the models
depend, so that it is 100 % only where that is alphabetical, as it is of one recording.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

CSV = "features_lisbet_embedding.csv"


@dataclass(frozen=True)
class Run:
    """What a command took: seconds, seconds of all cores, and bytes."""

    elapsed: float
    cpu: float
    memory: int


def main() -> None:
    """Measure both tools and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("--recordings", type=int, default=10)
    parser.add_argument("--states", default="2:8", help="smallest:largest number of states")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--published", type=Path, help="its virtual environment")
    parser.add_argument("--tiny", action="store_true", help="for the tests")
    given = parser.parse_args()
    if given.tiny:
        given.frames, given.dims, given.recordings, given.states = 600, 3, 2, "2:4"
        given.iterations = 2
    tools = {"betman": [sys.executable, "-m", "lisbet"]}
    if given.published is not None:
        tools["published"] = [str(given.published.absolute() / "bin" / "betman")]
    with tempfile.TemporaryDirectory() as folder:
        write_embeddings(Path(folder), given.frames, given.dims, given.recordings)
        print(
            f"{given.frames} frames of {given.recordings} recordings, {given.dims} dimensions, "
            f"{given.states} states, {given.iterations} iterations, {given.jobs} at a time\n"
        )
        print("| command | tool | time of all cores, s | elapsed, s | peak memory, MiB |")
        print("|---|---|---|---|---|")
        for name, words in commands(given).items():
            for tool, command in tools.items():
                found = measured([*command, *words(tool)], Path(folder))
                print(
                    f"| {name} | {tool} | {found.cpu:.1f} | {found.elapsed:.1f} | "
                    f"{found.memory / 2**20:.0f} |",
                    flush=True,
                )
        if given.published is not None:
            print(f"\nstates that agree: {agreement(Path(folder)):.4%}")
            listed = [path.name for path in (Path(folder) / "embeddings").iterdir()]
            if listed != sorted(listed):
                print(f"the file system lists the recordings as {', '.join(listed)}")


def commands(given: argparse.Namespace) -> dict:
    """Return the words of each command, given the name of the folder of results."""
    low, high = given.states.split(":")
    numbers = [f"--min_n_components={low}", f"--max_n_components={high}"]
    return {
        "segment_motifs": lambda tool: [
            "segment_motifs", "embeddings", *numbers, f"--num_iter={given.iterations}",
            "--hmm_seed=1", f"--n_jobs={given.jobs}", f"--output_path={tool}",
        ],
        "select_prototypes": lambda tool: [
            "select_prototypes", f"{tool}/annotations", *numbers, "--bout_threshold=0",
            "--frame_threshold=0", "--distance_threshold=1", f"--output_path={tool}",
        ],
    }  # fmt: skip


def write_embeddings(folder: Path, frames: int, dims: int, recordings: int) -> None:
    """Write embeddings of twelve motifs that last half a second on average."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, dims))
    for number in range(recordings):
        length = frames // recordings
        changes = np.cumsum(rng.random(length) < 1 / 15)
        motif = rng.integers(0, 12, changes[-1] + 1)[changes]
        values = centres[motif] + rng.normal(size=(length, dims))
        path = folder / "embeddings" / f"r{number:03d}" / CSV
        path.parent.mkdir(parents=True)
        pd.DataFrame(values.astype(np.float32)).to_csv(path)


def measured(command: list[str], folder: Path) -> Run:
    """Run a command; sample the memory of its processes while it runs."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if command[0] == sys.executable:
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        job = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        peak, cpu, over = 0, {}, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not over.wait(0.1):
                peak = max(peak, sample(job.pid, cpu))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(job.pid, 0)
        elapsed = time.perf_counter() - start
        over.set()
        watcher.join()
        job.returncode = os.waitstatus_to_exitcode(status)
        if job.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read().decode()[-2000:]}")
    own = usage.ru_utime + usage.ru_stime
    return Run(elapsed, max(own, sum(cpu.values())), peak)


def sample(pid: int, cpu: dict[int, float]) -> int:
    """Return the memory of a process and its children, and note the time that each took."""
    total = 0
    try:
        own = psutil.Process(pid)
        for process in (own, *own.children(recursive=True)):
            total += process.memory_full_info().pss
            times = process.cpu_times()
            cpu[process.pid] = times.user + times.system
    except psutil.Error:
        pass
    return total


def agreement(folder: Path) -> float:
    """Return the share of frames in which both tools have found the same state."""
    equal = []
    for path in sorted(folder.glob("betman/annotations/*/machineAnnotation_hmm*.csv")):
        other = folder / "published" / path.relative_to(folder / "betman")
        ours, theirs = (pd.read_csv(p, index_col=0).to_numpy() for p in (path, other))
        equal.append((ours == theirs).all(axis=1))
    return float(np.concatenate(equal).mean())


if __name__ == "__main__":
    main()
