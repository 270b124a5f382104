"""Compare betman with the published tool, PyPI lisbet 0.4.3: speed, start-up, memory.

    python benchmarks/published.py [--venv published_venv] [--rounds 2] [--networks 64x8,32x4,16x2]

Makes a virtual environment with the published tool, unless it is there: that needs the internet
and takes minutes. A package of a few lines stands in for torchvision, of which that tool uses only
the composition of functions. Both tools run through their commands, by turns, with the same
recordings, tasks, network and batch. A rate is that of the steps by which a long run is longer than
a short one; the start is what the short run takes besides its steps; memory is the largest sum over
all processes of a run (PSS: shared memory counts once).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import xarray as xr
from gpu_common import make_recordings

PUBLISHED = "lisbet==0.4.3"
NEEDS = ["h5py", "hmmlearn", "huggingface_hub", "joblib", "lightning", "matplotlib",
         "movement<0.17", "pandas", "pooch", "pydantic", "pyyaml", "scikit-learn", "seaborn",
         "torchinfo", "tqdm", "umap-learn", "rich"]  # fmt: skip
STAND_IN = {
    "__init__": "from . import transforms\n",
    # torchmetrics imports names of networks for images, which nothing here uses.
    "models": """
def __getattr__(name):
    if name[:2] == "__":
        raise AttributeError(name)
""",
    "transforms": """
class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, value):
        for transform in self.transforms:
            value = transform(value)
        return value
""",
}
TASKS = "--task_ids=cons,order,shift,warp"


@dataclass(frozen=True)
class Network:
    """Sizes of a network, and how much work a run of it is.

    Parameters
    ----------
    width, layers, heads : int
        Embedding, layers, and heads of the attention.
    window : int
        Frames of a window.
    short, long : int
        Training steps of the two runs.
    frames : int
        Frames by which the recordings of the longer run that computes embeddings are longer.
    """

    width: int
    layers: int
    heads: int
    window: int
    short: int
    long: int
    frames: int


NETWORKS = {
    "64x8": Network(64, 8, 8, 200, 2, 10, 1200),
    "32x4": Network(32, 4, 4, 200, 3, 40, 6000),
    "16x2": Network(16, 2, 2, 60, 10, 400, 30000),
}
BATCH = 32
RECORDINGS = 2


@dataclass(frozen=True)
class Run:
    """Seconds and peak memory, in bytes, of a command with all its processes."""

    seconds: float
    memory: int


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=Path("published_venv"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    asked = parser.parse_args()
    python = environment(asked.venv.resolve())
    tools = {"betman": [sys.executable, "-m", "lisbet"], "published": [str(python)]}
    print(f"{len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, batch {BATCH} of each "
          f"of four tasks, median of {asked.rounds} rounds\n")  # fmt: skip
    print("| network | what | published | betman | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for name in asked.networks.split(","):
            for row in compare(name, NETWORKS[name], tools, asked.rounds):
                print(f"| {name}, W {NETWORKS[name].window} | {row}", flush=True)


def environment(folder: Path) -> Path:
    """Make the environment of the published tool, unless it is there; return its command."""
    command = folder / "bin" / "betman"
    if command.exists():
        return command
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet"]
    subprocess.run([*pip, f"torch=={torch.__version__.partition('+')[0]}"], check=True)
    subprocess.run([*pip, *NEEDS], check=True)
    subprocess.run([*pip, "--no-deps", PUBLISHED], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "torchvision").mkdir()
    for name, text in STAND_IN.items():
        (packages / "torchvision" / f"{name}.py").write_text(text)
    return command


def write_recordings(folder: str, frames: int) -> None:
    """Write recordings as NetCDF 3, which the published tool reads."""
    with tempfile.TemporaryDirectory() as made:
        make_recordings(Path(made), frames, RECORDINGS)
        for path in Path(made).rglob("tracking.nc"):
            target = Path(folder, path.parent.name, path.name)
            target.parent.mkdir(parents=True)
            with xr.open_dataset(path) as recording:
                recording.to_netcdf(target, engine="scipy", format="NETCDF3_64BIT")


def compare(name: str, network: Network, tools: dict[str, list[str]], rounds: int) -> list[str]:
    """Run both tools by turns; return the rows of the table."""
    write_recordings(f"{name}-short", network.short * BATCH)
    write_recordings(f"{name}-long", network.long * BATCH)
    write_recordings(f"{name}-few", 400)
    write_recordings(f"{name}-many", 400 + network.frames)
    found: dict[tuple[str, str], list[Run]] = {}
    for number in range(rounds):
        for tool, command in tools.items():
            for length in ("short", "long"):
                words = training(tool, network, f"{name}-{tool}-{length}-{number}")
                done = measured([*command, *words, f"{name}-{length}"])
                found.setdefault((tool, length), []).append(done)
    run = f"models/{name}-betman-long-0"
    export = ["export_embedder", f"{run}/model_config.yml", f"{run}/weights/weights_last.pt"]
    measured([*tools["betman"], *export])
    model = f"{run}-embedder"
    for number in range(rounds):
        for tool, command in tools.items():
            for length in ("few", "many"):
                words = ["compute_embeddings", "--data_format=movement",
                         f"--output_path={tool}-{name}-{length}-{number}",
                         *[f"--window_size={network.window}"] * (tool == "published"),
                         f"{name}-{length}", f"{model}/model_config.yml",
                         f"{model}/weights/weights_last.pt"]  # fmt: skip
                done = measured([*command, *words])
                found.setdefault((tool, length), []).append(done)
    windows = 4 * BATCH * (network.long - network.short)
    return [
        row("training, windows/s", found, windows, "short", "long", network),
        row("seconds from the command to the first step", found, None, "short", "long", network),
        row("embeddings, frames/s", found, network.frames, "few", "many", network),
        row("peak memory of training, MB", found, None, "", "long", network),
        row("peak memory of embeddings, MB", found, None, "", "many", network),
    ]


def training(tool: str, network: Network, run_id: str) -> list[str]:
    """Return the words of train_model."""
    sizes = {"embedding_dim": network.width, "num_layers": network.layers,
             "num_heads": network.heads, "hidden_dim": 4 * network.width}  # fmt: skip
    if tool == "published":
        words = [word for key, n in sizes.items() for word in ("--set", f"backbone.{key}={n}")]
    else:
        words = [f"--{'emb_dim' if key == 'embedding_dim' else key}={n}"
                 for key, n in sizes.items()]  # fmt: skip
    return ["train_model", TASKS, "--data_format=movement", "--epochs=1", f"--run_id={run_id}",
            f"--batch_size={BATCH}", f"--window_size={network.window}", *words]  # fmt: skip


def measured(command: list[str]) -> Run:
    """Run a command; sample the memory of its processes while it runs."""
    began = time.monotonic()
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.25):
            peak = max(peak, memory_of(job.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = job.communicate()
    over.set()
    spent = time.monotonic() - began
    watcher.join()
    if job.returncode:
        sys.exit(f"{' '.join(command)}: exit code {job.returncode}\n{said[-2000:]}")
    return Run(spent, peak)


def memory_of(pid: int) -> int:
    """Return the memory of a process and its children, or 0 if it has ended."""
    total = 0
    try:
        own = psutil.Process(pid)
        for process in (own, *own.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        pass
    return total


def row(
    what: str,
    found: dict[tuple[str, str], list[Run]],
    work: int | None,
    short: str,
    long: str,
    network: Network,
) -> str:
    """Return a row: work per second, or seconds of the start, or peak memory."""
    values = {}
    for tool in ("published", "betman"):
        runs = found[tool, long]
        if not short:
            values[tool] = statistics.median(run.memory for run in runs) / 2**20
            continue
        pairs = list(zip(found[tool, short], runs, strict=True))
        more = statistics.median(b.seconds - a.seconds for a, b in pairs)
        if work is not None:
            values[tool] = work / more
        else:
            step = more / (network.long - network.short)
            starts = [a.seconds - network.short * step for a, _ in pairs]
            values[tool] = statistics.median(starts)
    ratio = values["betman"] / values["published"]
    published, own = (f"{values[tool]:,.1f}" for tool in ("published", "betman"))
    return f"{what} | {published} | {own} | {ratio:.2f} |"


if __name__ == "__main__":
    main()
