"""Peak memory of consolidating a checkpoint, for each form, relative to the size of the weights.

A larger network than usual makes one step on two processes; then ``consolidate_checkpoint``
runs in a process of its own. What importing the libraries takes is measured in another and
subtracted.

    python benchmarks/consolidate.py [--emb_dim 768] [--num_layers 8]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WAYS = ["single", "ddp", "fsdp", "deepspeed_zero2", "deepspeed_zero3"]


def main() -> None:
    """Train, consolidate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emb_dim", type=int, default=768)
    parser.add_argument("--num_layers", type=int, default=8)
    asked = parser.parse_args()
    network = [f"--emb_dim={asked.emb_dim}", f"--num_layers={asked.num_layers}", "--num_heads=8",
               f"--hidden_dim={4 * asked.emb_dim}", "--window_size=8", "--batch_size=2",
               "--epochs=1", "--train_sample=1e-6", "--task_ids=warp"]  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        cwd = Path(place)
        betman = [sys.executable, "-m", "lisbet"]
        subprocess.run([*betman, "fetch_dataset", "SampleData"], cwd=cwd, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        print(
            "| checkpoint of | its size, MB | weights, MB | peak, MB | peak / weights | time, s |"
        )
        print("|---|---|---|---|---|---|")
        for way in WAYS:
            words = [f"--launch={way}", *(["--num_processes=2"] if way != "single" else [])]
            subprocess.run(
                [*betman, "train_model", f"--run_id={way}", *words, *network,
                 "datasets/SampleData"],
                cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            run = cwd / "models" / way
            imports = "import lisbet.training.checkpoint.consolidate, deepspeed.utils.zero_to_fp32"
            if "deepspeed" not in way:
                imports = imports.split(",")[0]
            base, _ = peak([sys.executable, "-c", imports], cwd)
            (run / "weights" / "weights_last.pt").unlink()
            most, spent = peak([*betman, "consolidate_checkpoint", str(run)], cwd)
            weights = (run / "weights" / "weights_last.pt").stat().st_size
            size = sum(f.stat().st_size for f in (run / "checkpoints").rglob("*") if f.is_file())
            print(f"| {way} | {size / 1e6:.0f} | {weights / 1e6:.0f} | {(most - base) / 1e6:.0f} | "
                  f"{(most - base) / weights:.2f} | {spent:.1f} |", flush=True)  # fmt: skip
            subprocess.run(["rm", "-rf", str(run)], check=True)


def peak(command: list[str], cwd: Path) -> tuple[int, float]:
    """Run a command; return the most memory that it had resident, in bytes, and its CPU time."""
    with open(os.devnull, "w") as null:
        child = subprocess.Popen(
            command, cwd=cwd, stdout=null, env={**os.environ, "DS_ACCELERATOR": "cpu"}
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
