"""How OpenMP's threads should wait: steps per second alone, and with competing processes.

    python benchmarks/contention.py [--seconds 6] [--rounds 3] [--busy 0,1,2] [--tiny]

Each cell trains real steps in a process of its own, while the given number of other processes
computes without a pause; settings take turns, so that whatever else the machine does meets all
alike. Prints steps per second (the median of the rounds), and its ratio to the best of its column.

* default      GNU OpenMP as it is: a waiting thread looks 300,000 times before it sleeps, and the
               more threads there are than cores, the less
* passive      OMP_WAIT_POLICY=passive: it sleeps at once
* spin N       GOMP_SPINCOUNT=N: it looks N times
* one thread   OMP_NUM_THREADS=1
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 5000": {"GOMP_SPINCOUNT": "5000"},
    "spin 20000": {"GOMP_SPINCOUNT": "20000"},
    "spin 50000": {"GOMP_SPINCOUNT": "50000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
MODELS = {
    "16x2, W 60, batch 32": ["--emb_dim=16", "--num_layers=2", "--num_heads=2", "--hidden_dim=64",
                             "--window_size=60", "--batch_size=32"],
    "64x8, W 200, batch 8": ["--emb_dim=64", "--num_layers=8", "--num_heads=8", "--hidden_dim=256",
                             "--window_size=200", "--batch_size=8"],
}  # fmt: skip
TINY = {"8x1, W 12, batch 8": ["--emb_dim=8", "--num_layers=1", "--num_heads=2", "--hidden_dim=16",
                               "--window_size=12", "--batch_size=8"]}  # fmt: skip
VARIABLES = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
BUSY = "x = 1.0\nwhile True: x = x * 1.0000001 % 7"


def main() -> None:
    """Measure all cells in turn, and print a table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6, help="time of a cell in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", default="0,1,2", help="numbers of competing processes")
    parser.add_argument("--tiny", action="store_true", help="one very small model, to try it")
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        print(work(float(asked.worker[0]), asked.worker[1:]))
        return
    busy = [int(number) for number in asked.busy.split(",")]
    print(f"{len(os.sched_getaffinity(0))} cores, cells of {asked.seconds:g} s, median of "
          f"{asked.rounds} rounds: steps/s (of the best of the column)\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, "-m", "lisbet", "fetch_dataset", "SampleData"], cwd=place,
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        for model, words in (TINY if asked.tiny else MODELS).items():
            found: dict[tuple[str, int], list[float]] = {}
            for _ in range(asked.rounds):
                for number in busy:
                    for setting in SETTINGS:
                        rate = measure(setting, number, words, asked.seconds, place)
                        found.setdefault((setting, number), []).append(rate)
            report(model, busy, found)


def report(model: str, busy: list[int], found: dict[tuple[str, int], list[float]]) -> None:
    """Print the table of a model."""
    rates = {key: statistics.median(values) for key, values in found.items()}
    best = {number: max(rates[s, number] for s in SETTINGS) for number in busy}
    print(f"| {model} | " + " | ".join(f"{number} busy" for number in busy) + " | least ratio |")
    print("|---" * (len(busy) + 2) + "|")
    for setting in SETTINGS:
        ratios = [rates[setting, number] / best[number] for number in busy]
        cells = [f"{rates[setting, number]:.1f} ({ratio:.0%})"
                 for number, ratio in zip(busy, ratios, strict=True)]  # fmt: skip
        print(f"| {setting} | " + " | ".join(cells) + f" | {min(ratios):.0%} |", flush=True)
    print(flush=True)


def measure(setting: str, busy: int, words: list[str], seconds: float, place: str) -> float:
    """Return the steps per second of a process with a setting, while others compute."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--worker", str(seconds), *words],
            env=environment | SETTINGS[setting], cwd=place, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout.split()[-1])


def work(seconds: float, words: list[str]) -> float:
    """Train for some seconds; return the steps per second."""
    from lisbet.cli import parse
    from lisbet.distributed.failure_watch import distributed_session
    from lisbet.training.run_folder import with_run_id
    from lisbet.training.stopping import StopSignal
    from lisbet.training.train import make_trainer

    options = with_run_id(parse(["train_model", *words, "datasets/SampleData"]).options)
    with distributed_session("no") as accelerator:
        trainer, _, _ = make_trainer(accelerator, options, StopSignal())
        for _ in range(3):
            trainer.train_step()
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            trainer.step %= trainer.steps_per_epoch
            trainer.train_step()
            steps += 1
        return steps / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
