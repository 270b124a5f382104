"""Benchmarks run: what they print about this machine does not matter here."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_gpu_benchmark_on_a_cpu(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--tiny", "--parts=equality",
         f"--out={tmp_path}"], capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["errors"] == {}
    equal = {row["what"]: row["value"] for row in found["equality"]}
    assert equal["samples of 20 steps are bit by bit the same"] is True
    assert "| equality | |" in (tmp_path / "gpu.md").read_text()


def test_the_gpu_benchmark_goes_on_after_a_part_that_failed(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--tiny", "--parts=published,train",
         "--published=/nonexistent", f"--out={tmp_path}"], capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "failed: published" in done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["errors"].keys() == {"published"}
    resumed = [
        row["value"] for row in found["train"] if "stopped and resumed or not" in row["what"]
    ]
    assert len(resumed) == 2
    assert max(resumed) == 0
