"""What a batch script is warned of before it is submitted: it is written all the same."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from lisbet.commands.machine.container_mounts import hidden, links_below, mounts_of
from lisbet.commands.machine.launch import Launch
from lisbet.core.address import is_address
from lisbet.options import SlurmScriptOptions, TrainOptions
from lisbet.options.commands.sbatch import time_warning

DEEPSPEED_LABEL = "lisbet.deepspeed"
"""Label of an image: whether it has DeepSpeed, yes or no."""
INSPECT_S = 20
MOST_ROOTS = 3
"""Folders that are named one by one."""
PATHS = ("output_path", "load_backbone_weights")


def warnings_of(options: SlurmScriptOptions, train: TrainOptions, launch: Launch) -> Iterator[str]:
    """Yield what is probably wrong with a job whose options are valid."""
    for name, similar in options.sbatch.doubtful.items():
        hint = f"; did you mean --{similar[0]}?" if similar else ""
        yield f"--sbatch: no known release of sbatch has --{name}{hint}"
    if text := time_warning(options.time, options.max_time):
        yield text
    if options.venv is not None and options.venv.exists():
        yield from _venv_warnings(options.venv)
    if options.container is not None:
        if options.processes > 1 and launch.settings["distributed_type"] == "DEEPSPEED":
            yield from _deepspeed_warnings(options.container)
        yield from _mount_warnings(options, train, launch)


def _venv_warnings(venv: Path) -> Iterator[str]:
    if not os.access(venv / "bin" / "betman", os.X_OK):
        kind = "conda" if (venv / "conda-meta").is_dir() else "virtual"
        yield (
            f"--venv={venv}: there is no betman in {venv / 'bin'}; expected the folder of a {kind} "
            "environment in which LISBET is installed"
        )


def _deepspeed_warnings(container: Path) -> Iterator[str]:
    """Warn if an image lacks DeepSpeed, as far as its labels tell."""
    has = labels_of(container).get(DEEPSPEED_LABEL, "").lower()
    if has == "no":
        yield (
            f"the image {container} has no DeepSpeed (its label {DEEPSPEED_LABEL} says no); use "
            "--launch=fsdp, or build an image with it, see containers/README.md"
        )
    elif has != "yes":
        yield (
            f"it is not known whether the image {container} has DeepSpeed, which this --launch "
            f"needs: no label {DEEPSPEED_LABEL} can be read here. The job looks at its start, and "
            "ends with code 2 if it is missing"
        )


def labels_of(container: Path) -> dict[str, str]:
    """Return the labels of an Apptainer image; empty where they cannot be read."""
    names = (os.environ.get("APPTAINER", ""), "apptainer", "singularity")
    program = next((path for name in names if name and (path := shutil.which(name))), None)
    if program is None or not container.exists():
        return {}
    try:
        said = subprocess.run(
            [program, "inspect", "--json", "--labels", str(container)],
            capture_output=True, text=True, timeout=INSPECT_S, check=True,
        ).stdout  # fmt: skip
        labels = json.loads(said)["data"]["attributes"]["labels"]
        return {str(name): str(value) for name, value in labels.items()}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _mount_warnings(
    options: SlurmScriptOptions, train: TrainOptions, launch: Launch
) -> Iterator[str]:
    """Warn of paths that the container will not have."""
    mounts = mounts_of(options.bind, os.environ)
    given = [("data_path", path) for path in train.data_path if not is_address(path)]
    given += [(f"--{name}", path) for name in PATHS if (path := getattr(train, name)) is not None]
    if not launch.is_shipped:
        given.append(("--launch", launch.path))
    for name, path in given:
        inside = links_below(path) if name == "data_path" and path.is_dir() else iter(())
        lost = {place: to for place in (path, *inside) if (to := hidden(place, mounts)) is not None}
        if not lost:
            continue
        place, to = next(iter(lost.items()))
        how = "is" if to == Path(os.path.abspath(place)) else f"leads through a link to {to},"
        more = f" (as do {len(lost) - 1} others below it)" if len(lost) > 1 else ""
        bind = ",".join(filter(None, (options.bind, *_roots(lost.values()))))
        yield (
            f"{name}: {place} {how} outside what the container mounts{more}; pass --bind={bind}, "
            "unless this cluster mounts it in all containers"
        )


def _roots(places: Iterable[Path]) -> list[str]:
    """Return the folders to mount; one that holds them all, if they are many."""
    roots = sorted({str(place if place.is_dir() else place.parent) for place in places})
    return roots if len(roots) <= MOST_ROOTS else [os.path.commonpath(roots)]
