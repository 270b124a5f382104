"""Time and memory of turning CalMS21-like JSON into recordings.

    python benchmarks/fetch.py [--gigabytes 1.0] [--parts 4]

Makes an archive of the true layout in a temporary folder, then runs `betman fetch_dataset
CalMS21_Unlabeled --source=…` on it in a process of its own, and prints how long that took and the
most memory it held, beside what the same process holds when it has only loaded its libraries.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from lisbet.data.hub._download import md5_of

FRAMES = 10_000
PROGRAM = """
import resource, sys, time
from lisbet.cli import main
from lisbet.data.hub import calms21
def held(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
import xarray, netCDF4
before, start = held(), time.perf_counter()
calms21.ARCHIVES["unlabeled_videos"] = sys.argv[1]
main(["fetch_dataset", "CalMS21_Unlabeled", f"--source={sys.argv[2]}",
      f"--download_path={sys.argv[3]}"])
print(time.perf_counter() - start, before, held())
"""


def make(path: Path, size: float, parts: int) -> tuple[int, int]:
    """Write the archive; return the bytes of JSON and the number of sequences."""
    rng = np.random.default_rng(0)
    total = count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for part in range(parts):
            name = f"unlabeled_videos/calms21_unlabeled_videos_part{part + 1}.json"
            with archive.open(name, "w", force_zip64=True) as stream:
                written = stream.write(b'{"unlabeled_videos": {')
                while written < size / parts:
                    sequence = {
                        "keypoints": (rng.random((FRAMES, 2, 2, 7)) * 500).tolist(),
                        "scores": rng.random((FRAMES, 2, 7)).tolist(),
                        "metadata": {"fps": 30},
                    }
                    comma = ", " if written > 30 else ""
                    text = f'{comma}"unlabeled_videos/mouse{count:04}": {json.dumps(sequence)}'
                    written += stream.write(text.encode())
                    count += 1
                total += written + stream.write(b"}}")
    return total, count


def main() -> None:
    """Make the archive, convert it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--parts", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = folder / "unlabeled_videos.zip"
        start = time.perf_counter()
        total, count = make(archive, arguments.gigabytes * 1e9, arguments.parts)
        print(f"made {total / 1e6:.0f} MB of JSON in {arguments.parts} parts, {count} sequences of "
              f"{FRAMES} frames ({time.perf_counter() - start:.0f} s)")  # fmt: skip
        # Not read as a whole: a child process is counted with what its parent once held.
        md5 = md5_of(archive)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, md5, archive, folder],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds, before, held = map(float, done.stdout.splitlines()[-1].split())
        written = sum(f.stat().st_size for f in (folder / "datasets").rglob("*.nc")) / 1e6
        part = total / arguments.parts / 2**20
        figures = {
            "JSON, MB": f"{total / 1e6:.0f}",
            "time, s": f"{seconds:.0f}",
            "MB/s": f"{total / 1e6 / seconds:.1f}",
            "written, MB": f"{written:.0f}",
            "libraries, MiB": f"{before:.0f}",
            "peak, MiB": f"{held:.0f}",
            "peak / part": f"{held / part:.2f}",
        }
        print(f"\n| {' | '.join(figures)} |\n|{'---|' * len(figures)}")
        print(f"| {' | '.join(figures.values())} |")


if __name__ == "__main__":
    main()
