"""Benchmarks run: what they print about this machine does not matter here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.thorough
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


def run(script: str, *words: object, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *map(str, words)], capture_output=True, text=True,
        timeout=300, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_benchmark_of_growing_work(tmp_path):
    said = run("growth.py", "--tiny", "--seconds=0.01", "--axes=batch,network", folder=tmp_path)
    rows = [line.split("|") for line in said.splitlines() if line.startswith(("| batch", "| net"))]
    assert len(rows) == 4
    assert all(float(row[4].replace(",", "")) > 0 for row in rows)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_the_benchmark_of_small_batches(dataset, tmp_path):
    said = run("small_batches.py", dataset, "--seconds=0.01",
               "--options=--preset=social --window_size=12", folder=tmp_path)  # fmt: skip
    rows = [line.split("|") for line in said.splitlines() if line.startswith("| ")][1:]
    assert [row[1].strip() for row in rows] == ["8", "16", "32", "64", "128"]
    assert all(float(row[2].replace(",", "")) > 0 for row in rows)


@pytest.mark.thorough
def test_the_benchmark_of_embeddings(tmp_path):
    fetched = subprocess.run(
        [sys.executable, "-m", "lisbet", "fetch_dataset", "SampleData"], cwd=tmp_path, check=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert fetched.returncode == 0
    said = run(
        "quality.py", "--tiny", "--data=sample=datasets/SampleData:movement", "--folds=2",
        "--scored=1", "--recordings=:6", "--variants=social,four tasks", folder=tmp_path,
    )  # fmt: skip
    assert "| social, averaged |" in said
    assert "| kinematics, averaged |" in said
    assert len((tmp_path / "quality.csv").read_text().splitlines()) > 10
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_the_stand_in_of_the_comparison_with_the_published_tool(tmp_path):
    """What it takes the place of: functions of torchvision that compose, and names of networks."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import published
    finally:
        sys.path.remove(str(BENCHMARKS))
    module: dict = {}
    exec(published.STAND_IN["transforms"], module)
    assert module["Compose"]([lambda x: x + 1, lambda x: 2 * x])(3) == 8
    words = published.training("betman", published.NETWORKS["16x2"], "run")
    assert "--emb_dim=16" in words
    words = published.training("published", published.NETWORKS["16x2"], "run")
    assert words[words.index("--set") + 1] == "backbone.embedding_dim=16"


def test_the_benchmark_of_motifs(tmp_path):
    said = run("motifs.py", "--tiny", folder=tmp_path)
    rows = [line.split("|") for line in said.splitlines() if "| betman |" in line]
    assert [row[1].strip() for row in rows] == ["segment_motifs", "select_prototypes"]
    assert all(float(row[3]) > 0 and float(row[5]) > 10 for row in rows)


@pytest.mark.thorough
@pytest.mark.skipif(
    not (BENCHMARKS.parent / "published_venv").is_dir(),
    reason="there is no environment with the published tool, see benchmarks/published.py",
)
def test_the_comparison_of_models_of_both_tools(tmp_path):
    place = BENCHMARKS.parent / "published_venv"
    said = run("interchange.py", "--tiny", f"--published={place}", folder=tmp_path)
    results = [line.split("|")[-2].strip() for line in said.splitlines() if "| transformer" in line]
    assert len(results) >= 12
    assert not [result for result in results if result.startswith(("refused", "DIFFERENT"))]
