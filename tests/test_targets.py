"""Every command that writes, with every kind of thing at the place where it writes.

The matrix has 12 ways to write x 20 situations x the flags of the command (none, ``--overwrite``,
``--resume``), less those that make no sense: 466 cells. In each of them everything that betman did
not write is the same before and after (names, types, contents, targets of links, inodes), there is
at most one error message and no traceback, and nothing unfinished stays.
"""

import contextlib
import importlib
import itertools
import os
import pkgutil
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY

import lisbet
from lisbet.cli import main
from lisbet.commands.pictures import embeddings
from lisbet.core.storage.write_log import LOG
from lisbet.data.hub import sample_data

CELLS = 466
NOBODY = 65534
UNFINISHED = (".partial", ".lock", ".replaced", ".old", ".removed", ".part")
TRAIN = [*TINY, "--task_ids=multiclass", "--annot_format=movement"]
OWN = Path("models/own")
EMBEDDER = Path("models/own-embedder")
OLDER = "step_00000001"


@dataclass(frozen=True)
class Way:
    """A way to write.

    Parameters
    ----------
    name : str
        The command.
    source : Path
        What it reads.
    words : callable
        The command's words, of the folder that it is told to write in, and of the source.
    target : callable
        The file or folder that it writes, of the same two.
    odd : callable
        The command's words with an empty name or path, ``.`` or ``..``.
    """

    name: str
    source: Path
    words: Callable[[Path, Path], list[object]]
    target: Callable[[Path, Path], Path]
    odd: Callable[[str], list[object]]
    flags: tuple[str, ...] = ("", "--overwrite")
    without: tuple[str, ...] = ()


def inference(command: str, model: Path, file: str) -> Way:
    files = [model / "model_config.yml", model / "weights/weights_last.pt"]
    return Way(
        command,
        Path("data"),
        lambda base, source: [command, source, *files, f"--output_path={base}"],
        lambda base, source: base / file,
        lambda word: [command, "data", *files, f"--output_path={word}"],
    )


WAYS = (
    Way(
        "train_model",
        Path("data"),
        lambda base, source: ["train_model", *TRAIN, "--epochs=1", "--train_sample=1e-6",
                              f"--output_path={base}", "--run_id=new", source],
        lambda base, source: base / "models/new",
        lambda word: ["train_model", *TRAIN, "--epochs=1", f"--run_id={word}", "data"],
        flags=("", "--overwrite", "--resume"),
    ),
    Way(
        "export_embedder",
        OWN,
        lambda base, source: ["export_embedder", source / "model_config.yml",
                              source / "weights/weights_last.pt", f"--output_path={base}"],
        lambda base, source: base / EMBEDDER,
        lambda word: ["export_embedder", OWN / "model_config.yml",
                      OWN / "weights/weights_last.pt", f"--output_path={word}"],
    ),
    Way(
        "fetch_model",
        EMBEDDER,
        lambda base, source: ["fetch_model", "org/new", f"--source={source}",
                              f"--output_path={base}"],
        lambda base, source: base / "models/new",
        lambda word: ["fetch_model", f"org/{word}", f"--source={EMBEDDER}"],
    ),
    Way(
        "fetch_dataset",
        Path("data"),
        lambda base, source: ["fetch_dataset", "SampleData", f"--download_path={base}"],
        lambda base, source: base / "datasets/SampleData",
        lambda word: ["fetch_dataset", "SampleData", f"--download_path={word}"],
        without=("inside the source", "around the source"),
    ),
    Way(
        "convert_dataset",
        Path("data"),
        lambda base, source: ["convert_dataset", "--workers=1", source, base / "new.zarr"],
        lambda base, source: base / "new.zarr",
        lambda word: ["convert_dataset", "--workers=1", "data", word],
    ),
    inference("compute_embeddings", EMBEDDER,
              "embeddings/simulated00/features_lisbet_embedding.csv"),
    inference("annotate_behavior", OWN, "annotations/simulated00/machineAnnotation_lisbet.csv"),
    inference("evaluate_model", OWN, "evaluations/own/evaluation_report.yml"),
    Way(
        "consolidate_checkpoint",
        OWN,
        lambda base, source: ["consolidate_checkpoint", source, f"--checkpoint={OLDER}"],
        lambda base, source: source / "weights/weights_last.pt",
        lambda word: ["consolidate_checkpoint", word],
        without=("inside the source", "around the source"),
    ),
    Way(
        "plot_history",
        OWN,
        lambda base, source: ["plot_history", source, f"--output_path={base}/new.png"],
        lambda base, source: base / "new.png",
        lambda word: ["plot_history", OWN, f"--output_path={word}"],
    ),
    Way(
        "plot_history of several runs",
        Path("models"),
        lambda base, source: ["plot_history", source / "own", source / "own"],
        lambda base, source: source / "training_histories.png",
        lambda word: ["plot_history", f"{OWN},{word}"],
        without=("inside the source", "around the source", "unwritable parent"),
    ),
    Way(
        "plot_embeddings",
        Path("embeddings"),
        lambda base, source: ["plot_embeddings", source, f"--output_path={base}/new.png"],
        lambda base, source: base / "new.png",
        lambda word: ["plot_embeddings", "embeddings", f"--output_path={word}"],
    ),
)  # fmt: skip
FIXED_PLACE = ("consolidate_checkpoint", "plot_history of several runs")
"""These write at a place of their source, so that there is no folder to name."""
AT_TARGET = (
    "existing file", "foreign folder", "ours with foreign files", "link to folder", "link to file",
    "dangling link", "link loop",
)  # fmt: skip
AT_FOLDER = {
    "folder is a file": "existing file",
    "folder is a link to a folder": "link to folder",
    "folder is a link to a file": "link to file",
    "folder is a dangling link": "dangling link",
    "folder is a link loop": "link loop",
}
"""The same, at the folder that a command is told to write in."""
ODD = {"empty string": "", "dot": ".", "dot dot": ".."}
SITUATIONS = (
    "nothing there", *ODD, *AT_TARGET, *AT_FOLDER, "inside the source", "around the source",
    "read-only folder", "unwritable parent",
)  # fmt: skip


def matrix() -> list[object]:
    cells = []
    for way, situation in itertools.product(WAYS, SITUATIONS):
        if situation in way.without or (situation in AT_FOLDER and way.name in FIXED_PLACE):
            continue
        for flag in way.flags:
            name = f"{way.name}, {situation}{flag and ', '}{flag}"
            cells.append(pytest.param(way, situation, flag, id=name))
    return cells


def test_the_number_of_cells():
    assert str(CELLS) in __doc__
    assert len(matrix()) == CELLS


# What is there before -----------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported() -> None:
    """The other user of closed folders may not be allowed to read Python's own files."""
    for module in pkgutil.walk_packages(lisbet.__path__, "lisbet."):
        if "trackers" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A folder with recordings, a run, its embedder and embeddings."""
    with tempfile.TemporaryDirectory(prefix="betman-targets-") as name:
        os.chmod(name, 0o755)
        work = Path(name) / "template" / "work"
        sample_data.write(work / "data", [40, 40])
        with contextlib.chdir(work):
            main(["train_model", *TRAIN, "--epochs=2", "--run_id=own", "--train_sample=1e-6",
                  "--save_history", "data"])  # fmt: skip
            main(["export_embedder", str(OWN / "model_config.yml"),
                  str(OWN / "weights/weights_last.pt")])  # fmt: skip
            main(["compute_embeddings", "data", str(EMBEDDER / "model_config.yml"),
                  str(EMBEDDER / "weights/weights_last.pt")])  # fmt: skip
        assert (work / OWN / "checkpoints" / OLDER).is_dir()
        yield work.parent


@pytest.fixture(scope="module")
def ready(template) -> Callable[[Way], Path]:
    """The folder as it is after a command has written where it is going to write again."""
    made: dict[str, Path] = {}

    def ready(way: Way) -> Path:
        if way.name == "consolidate_checkpoint":
            return template  # its run has weights, of a newer checkpoint
        if way.name not in made:
            place = template.parent / f"ready {way.name}"
            shutil.copytree(template, place, symlinks=True)
            with contextlib.chdir(place / "work"):
                run([*way.words(Path("out"), way.source)])
            made[way.name] = place
        return made[way.name]

    return ready


@pytest.fixture
def cell(template) -> Iterator[Path]:
    place = template.parent / "cell"
    shutil.copytree(template, place, symlinks=True)
    yield place
    for folder, _, _ in os.walk(place):
        os.chmod(folder, 0o755)
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(sample_data, "LENGTHS", [40])
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(
        embeddings,
        "layout",
        lambda values, chosen, *_: (values[chosen][:, :2], "plane", ("a", "b")),
    )


def fill(folder: Path) -> None:
    """Fill a folder with what somebody may have there, named as our files are, too."""
    (folder / ".git").mkdir(parents=True)
    for name in ("notes.txt", ".git/HEAD", "model_config.yml", "tracking.nc", "zarr.json"):
        (folder / name).write_text(f"theirs: {name}")
    (folder / "weights").mkdir()
    (folder / "weights" / "weights_last.pt").write_text("theirs")
    (folder / "checkpoints" / "step_00000009").mkdir(parents=True)
    (folder / "link").symlink_to("/nowhere")


def put(what: str, path: Path) -> None:
    """Put something of somebody else at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.unlink()
    theirs = path.with_name("theirs")
    if what == "existing file":
        path.write_text("theirs")
    elif what == "foreign folder":
        fill(path)
    elif what == "link to folder":
        fill(theirs)
        path.symlink_to(theirs.name)
    elif what == "link to file":
        theirs.write_text("theirs")
        path.symlink_to(theirs.name)
    elif what == "dangling link":
        path.symlink_to("nowhere")
    elif what == "link loop":
        path.symlink_to(path.name)


def extend(target: Path) -> None:
    """Put files of somebody else among ours."""
    folder = target if target.is_dir() else target.parent
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        (place / "thesis.tex").write_text("theirs")
    (folder / ".git").mkdir(exist_ok=True)
    (folder / ".git" / "HEAD").write_text("theirs")
    (folder / "dangling").symlink_to("/nowhere")


def snapshot(place: Path) -> dict[str, tuple[object, ...]]:
    """Describe everything in a folder: type, content or target, inode."""
    found = {}
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            content: object = None
            if path.is_symlink():
                content = os.readlink(path)
            elif name in files:
                content = path.read_bytes()
            kind = stat.S_IFMT(status.st_mode)
            found[str(path.relative_to(place))] = (kind, content, status.st_ino)
    return {name: value for name, value in found.items() if Path(name).name != LOG}


def run(words: list[object]) -> int:
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@contextlib.contextmanager
def closed(folder: Path | None, place: Path) -> Iterator[None]:
    """Close a folder, and act as a user for whom that holds: root may write everywhere.

    `place` is what the user owns.
    """
    if folder is None:
        yield
        return
    as_root = os.geteuid() == 0
    if as_root:
        for parent, folders, files in os.walk(place):
            for name in (".", *folders, *files):
                os.chown(Path(parent, name), NOBODY, NOBODY, follow_symlinks=False)
        os.seteuid(NOBODY)
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)
        if as_root:
            os.seteuid(0)


# What happens -------------------------------------------------------------------------------------


@dataclass
class Cell:
    """What a command is given, and what is there before it runs."""

    words: list[object]
    target: Path | None = None
    ours: frozenset[str] = frozenset()
    closed: Path | None = None
    """A folder that must not be written to."""


def arrange(way: Way, situation: str, cell: Path, ready: Path) -> Cell:
    """Make a situation in the folder one stands in, which is ``cell/work``."""
    if situation in ODD:
        made = ("work/embeddings/", f"work/{EMBEDDER}")  # by the template, and in this folder
        ours = frozenset(name for name in snapshot(cell) if name.startswith(made))
        return Cell(way.odd(ODD[situation]), ours=ours)
    source, base = way.source, Path("out")
    if situation == "inside the source":
        base = source / "out"
    elif situation == "around the source":
        inner = way.target(base, source) / "inner"
        shutil.copytree(source, inner / source.name, symlinks=True)
        source = inner / source.name
    elif situation == "unwritable parent":
        base = Path("closed/out")
        Path("closed").mkdir()
    elif situation in AT_FOLDER:
        put(AT_FOLDER[situation], base)
    target = way.target(base, source)
    made = Cell(way.words(base, source), target)
    if situation == "ours with foreign files":
        own = {
            str(path.relative_to(cell))
            for path in (Path.cwd() / target, *target.absolute().rglob("*"))
        }
        made.ours = frozenset(
            own | snapshot(ready).keys() - snapshot(cell.parent / "template").keys()
        )
        extend(target)
    elif situation in AT_TARGET or way.name in FIXED_PLACE:
        put(situation, target)
    if situation == "read-only folder":
        target.parent.mkdir(parents=True, exist_ok=True)
        (target.parent / "notes.txt").write_text("theirs")
        made.closed = target.parent
    elif situation == "unwritable parent":
        made.closed = target.parent if way.name in FIXED_PLACE else Path("closed")
    return made


@pytest.mark.parametrize(("way", "situation", "flag"), matrix())
def test_what_is_not_ours_stays(way, situation, flag, cell, ready, capsys):
    if situation == "ours with foreign files":
        shutil.rmtree(cell)
        shutil.copytree(ready(way), cell, symlinks=True)
    capsys.readouterr()
    with contextlib.chdir(cell / "work"):
        made = arrange(way, situation, cell, ready(way) if "ours" in situation else cell)
        before = {name: value for name, value in snapshot(cell).items() if name not in made.ours}
        with closed(made.closed, cell):
            code = run([*made.words, *([flag] if flag else [])])
        if situation == "nothing there":
            assert made.target.exists()
    said = capsys.readouterr().err
    after = snapshot(cell)
    changed = {name for name, value in before.items() if after.get(name) != value}
    assert not changed, (changed, code, said)
    assert code in (0, 2), said
    assert said.count("betman: error:") == (code == 2), said
    assert "Traceback" not in said
    left = [name for name in after.keys() - before.keys() if name.endswith(UNFINISHED)]
    assert not left
    assert code == expected(way, situation, flag, code), said


def expected(way: Way, situation: str, flag: str, code: int) -> int:
    """Return the exit code where it is decided by the rule, else what it was."""
    if situation == "nothing there":
        return 0
    if situation == "ours with foreign files":
        # What is there already is not fetched or converted again.
        same = way.name in ("fetch_dataset", "convert_dataset")
        return 0 if flag or same else 2
    refused = {*AT_TARGET, *AT_FOLDER, "empty string", "read-only folder", "unwritable parent"}
    return 2 if situation in refused - {"folder is a link to a folder"} else code
