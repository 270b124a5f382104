"""Train on data larger than memory: how fast, in how much memory, how well shuffled.

    python benchmarks/converted.py [convert] [windows] [large] [many] [chunks] [shuffle] [learning]

Each section makes its data in a temporary folder and removes it. The figures of a section are of
one run; peaks of memory are those of processes of their own (VmHWM), libraries included.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from converted_data import (
    BATCH,
    FEATURES,
    MB,
    evict,
    moving,
    peak_mb,
    sampler,
    walks,
    write_store,
)
from converted_shuffling import learning, shuffle

from lisbet.data.bank import Bank
from lisbet.data.hub._simulate import ARENA_PX, FPS, INDIVIDUALS, KEYPOINTS
from lisbet.data.hub._write import write_tracks
from lisbet.data.streaming_bank import StreamingBank
from lisbet.data.zarr.store import POSITION, Store


def apart(section: str, **values: object) -> dict:
    """Run a section of this file in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--inside", section, json.dumps(values)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def convert(place: Path) -> None:
    """MB/s of NetCDF into Zarr."""
    count, frames = 60, 60_000
    for number in range(count):
        pixels = walks(frames, number) * np.array(ARENA_PX, np.float32)
        folder = place / "data" / f"r{number:03}"
        folder.mkdir(parents=True)
        write_tracks(
            folder, pixels.transpose(0, 3, 2, 1), individuals=INDIVIDUALS, keypoints=KEYPOINTS,
            fps=FPS, image_size_px=ARENA_PX, source="random walks",
        )  # fmt: skip
    raw = count * frames * FEATURES.size * 4 / MB
    print(f"{count} recordings of {frames} frames, {raw:.0f} MB of float32\n")
    print("| workers | time, s | MB/s | written, MB | peak of the writer, MB |")
    print("|---|---|---|---|---|")
    for workers in (1, 2):
        evict(place / "data")
        time_s, peak = converting(place, workers)
        size = sum(f.stat().st_size for f in (place / "out.zarr").rglob("*") if f.is_file()) / MB
        shutil.rmtree(place / "out.zarr")
        print(f"| {workers} | {time_s:.1f} | {raw / time_s:.0f} | {size:.0f} | {peak:.0f} |")


CONVERTING = """
import sys, time
from lisbet.cli import main
started = time.perf_counter()
main(sys.argv[1:])
print(time.perf_counter() - started, open("/proc/self/status").read().partition("VmHWM:")[2])
"""
"""Not in this file: processes that read with others import the program that they come from."""


def converting(place: Path, workers: int) -> tuple[float, float]:
    """Convert as betman does; return time in s, and peak memory in MiB."""
    line = ["convert_dataset", f"--workers={workers}", place / "data", place / "out.zarr"]
    done = subprocess.run([sys.executable, "-c", CONVERTING, *line], check=True,
                          capture_output=True, text=True)  # fmt: skip
    time_s, peak_kb, *_ = done.stdout.splitlines()[1].split()
    return float(time_s), int(peak_kb) / 1024


def windows(place: Path) -> None:
    """Windows per second of each way to read them, and their memory."""
    lengths = np.full(120, 30_000)
    write_store(place / "data.zarr", lengths)
    (place / "nc").mkdir()
    for number in range(4):
        walk = walks(30_000, number)
        names = ("time", "individuals", "keypoints", "space")
        xr.Dataset({"position": (names, walk)}).to_netcdf(place / "nc" / f"{number}.nc")
    size = int(lengths.sum()) * FEATURES.size * 4 / MB
    print(f"120 recordings of 30000 frames ({size:.0f} MB), task warp and shift in turn, batch "
          f"{BATCH}, W 200, one core for sampling, memory of the moving bank 64 MB\n")  # fmt: skip
    print("| way | windows/s | of the bank in memory | waited for data | peak, MB |")
    print("|---|---|---|---|---|")
    found = {}
    for way in ("bank in memory", "moving bank, cache warm", "moving bank, cache cold",
                "Zarr, window by window", "NetCDF by xarray, window by window"):  # fmt: skip
        if "cold" in way:
            evict(place)
        found[way] = apart("reading", place=str(place), way=way)
        told, base = found[way], found["bank in memory"]["rate"]
        print(f"| {way} | {told['rate']:,.0f} | {told['rate'] / base:.1%} | "
              f"{told['waited']:.1%} | {told['peak']:.0f} |")  # fmt: skip
    moving = found["moving bank, cache warm"]["rate"]
    print(f"\nmoving bank / Zarr, window by window: "
          f"{moving / found['Zarr, window by window']['rate']:.0f}×")  # fmt: skip


def reading(place: str, way: str) -> dict:
    torch.set_num_threads(1)
    store = Store.open(Path(place) / "data.zarr")
    waited = 0.0
    if way.startswith(("bank", "moving")):
        records = store.records()
        bank = Bank.from_records(records) if way.startswith("bank") else moving(records, 64 * MB)
        draws = sampler(bank)
        steps = draws.steps  # an epoch: every block comes up
        draws.batch(0, 0, slice(0, BATCH))
        first = time.perf_counter()
        before = bank.tracks_at.waited_s if isinstance(bank, StreamingBank) else 0.0
        for step in range(1, steps):
            draws.batch(0, step, slice(0, BATCH))
        spent = time.perf_counter() - first
        if isinstance(bank, StreamingBank):
            waited = bank.tracks_at.waited_s - before
            bank.tracks_at.close()
        made = (steps - 1) * BATCH * 2
    else:
        made, spent = one_by_one(place, store, way)
    return {"rate": made / spent, "waited": waited / spent, "peak": peak_mb()}


def one_by_one(place: str, store: Store, way: str) -> tuple[int, float]:
    rng = np.random.default_rng(0)
    array = store.group[POSITION]
    opened = [xr.open_dataset(file) for file in sorted((Path(place) / "nc").iterdir())]
    first, made = time.perf_counter(), 0
    while time.perf_counter() - first < 5:
        if way.startswith("Zarr"):
            start = int(rng.integers(array.shape[0] - 200))
            torch.from_numpy(array[start : start + 200])
        else:
            dataset = opened[rng.integers(len(opened))]
            start = int(rng.integers(dataset.sizes["time"] - 200))
            torch.from_numpy(dataset.position.isel(time=slice(start, start + 200)).values)
        made += 1
    return made, time.perf_counter() - first


def large(place: Path, gigabytes: float = 10, cap: int = 512) -> None:
    """Peak memory of a run over data 20 times the cap."""
    frames = int(gigabytes * 2**30 / (FEATURES.size * 4))
    if shutil.disk_usage(place).free < 1.5 * gigabytes * 2**30:
        print(f"not enough disk for {gigabytes} GB")
        return
    lengths = np.full(frames // 20_000, 20_000)
    started = time.perf_counter()
    write_store(place / "data.zarr", lengths)
    disk = sum(file.stat().st_size for file in (place / "data.zarr").rglob("*") if file.is_file())
    print(f"{gigabytes:g} GB of float32 ({disk / 2**30:.1f} GB on disk, written in "
          f"{time.perf_counter() - started:.0f} s), --bank_memory={cap}MB\n")  # fmt: skip
    few = apart("training", place=str(place), cap=cap, share=1, words="r00000")
    print("| recordings | steps | blocks moved | peak, MB | peak beyond the cap, MB |")
    print("|---|---|---|---|---|")
    most = apart("training", place=str(place), cap=cap, share=0.0128, words="r")
    for name, told in (("ten of them (21 MB), in memory", few), ("all", most)):
        print(f"| {name} | {told['steps']} | {told['moved']} | {told['peak']:.0f} | "
              f"{told['peak'] - cap:.0f} |")  # fmt: skip


def training(place: str, cap: int, share: float, words: str) -> dict:
    """Train a small network by betman, in this process, and look at its memory."""
    from lisbet.cli import main
    from lisbet.data.streaming_bank import Tracks

    moves, move = [], Tracks._move
    Tracks._move = lambda self, position: (moves.append(position), move(self, position))[1]  # type: ignore[method-assign]
    os.chdir(place)
    main(["train_model", "--data_format=zarr", f"--bank_memory={cap}MB", "--emb_dim=8",
          "--num_layers=1", "--num_heads=2", "--hidden_dim=16", "--window_size=50", "--epochs=1",
          "--task_ids=shift", "--batch_size=4096", f"--train_sample={share}",
          f"--data_filter={words}", f"--run_id={words}", "data.zarr"])  # fmt: skip
    state = next(Path("models", words, "checkpoints").iterdir())
    return {"peak": peak_mb(), "moved": len(moves), "steps": int(state.name[5:])}


def many(place: Path, count: int = 100_000) -> None:
    """Start-up with very many recordings."""
    write_store(place / "data.zarr", np.full(count, 120))
    told = apart("starting", place=str(place))
    print(f"{count:,} recordings of 120 frames, beyond importing the libraries\n")
    print("| step | time, s |")
    print("|---|---|")
    for name, spent in told.items():
        print(f"| {name} | {spent:.2f} |")


def starting(place: str) -> dict:
    from lisbet.options import TrainOptions
    from lisbet.training.inputs import TrainingInputs

    options = TrainOptions(data_path=f"{place}/data.zarr", data_format="zarr", dev_ratio=0.1,
                           bank_memory="256MB", output_path=place, run_id="a")  # fmt: skip
    first = time.perf_counter()
    setup = TrainingInputs.from_options(options, torch.device("cpu"))
    second = time.perf_counter()
    setup.train.batch(0, 0, slice(0, BATCH))
    third = time.perf_counter()
    return {"read the table, split, check": second - first, "first batch": third - second,
            "together": third - first}  # fmt: skip


def chunks(place: Path) -> None:
    """Read blocks, and single windows, from chunks and shards of different sizes."""
    lengths = np.full(50, 40_000)
    raw = int(lengths.sum()) * FEATURES.size * 4 / MB
    print(f"{raw:.0f} MB of float32, blocks of 16 MB in random order, page cache cold\n")
    print("| shard, MB | chunk, KB | files | on disk, MB | written, MB/s | blocks, MB/s | single "
          "windows/s |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for shard in (16, 128):
        for chunk in (64, 256, 1024, 4096):
            path = place / f"{shard}-{chunk}.zarr"
            first = time.perf_counter()
            write_store(path, lengths, shard_bytes=shard * MB, chunk_bytes=chunk * 1024)
            wrote = time.perf_counter() - first
            files = [f for f in (path / POSITION).rglob("*") if f.is_file()]
            disk = sum(f.stat().st_size for f in files) / MB
            evict(path)
            store, rng, rows = Store.open(path), np.random.default_rng(0), 16 * MB // 112
            total = int(lengths.sum())
            first = time.perf_counter()
            for start in rng.permutation(np.arange(0, total - rows, rows)):
                store.read(int(start), int(start) + rows)
            blocks = (total // rows) * 16 / (time.perf_counter() - first)
            made, spent = one_by_one_rate(store)
            print(f"| {shard} | {chunk} | {len(files)} | {disk:.0f} | {raw / wrote:.0f} | "
                  f"{blocks:.0f} | {made / spent:.0f} |")  # fmt: skip
            shutil.rmtree(path)


def one_by_one_rate(store: Store) -> tuple[int, float]:
    rng, array = np.random.default_rng(0), store.group[POSITION]
    first, made = time.perf_counter(), 0
    while time.perf_counter() - first < 2:
        start = int(rng.integers(array.shape[0] - 200))
        array[start : start + 200]
        made += 1
    return made, time.perf_counter() - first


SECTIONS: dict[str, Callable] = {
    f.__name__: f for f in (convert, windows, large, many, chunks, shuffle, learning)
}
INSIDE: dict[str, Callable] = {f.__name__: f for f in (reading, training, starting)}


def places() -> Iterator[Path]:
    while True:
        with tempfile.TemporaryDirectory(prefix="lisbet-zarr-") as place:
            yield Path(place)


def main_program() -> None:
    """Run the sections that were asked for."""
    if sys.argv[1:2] == ["--inside"]:
        sys.stdout, out = sys.stderr, sys.stdout
        print(json.dumps(INSIDE[sys.argv[2]](**json.loads(sys.argv[3]))), file=out)
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], default=[])
    for name, place in zip(parser.parse_args().sections or SECTIONS, places(), strict=False):
        print(f"\n### {name}: {SECTIONS[name].__doc__}\n", flush=True)
        SECTIONS[name](place)


if __name__ == "__main__":
    main_program()
