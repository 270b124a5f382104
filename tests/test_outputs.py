"""What commands refuse before they write, and what they write over; see also test_targets."""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import TINY, write_dataset

from lisbet.cli import main
from lisbet.commands.applying import predict
from lisbet.commands.applying.results import Results
from lisbet.core.config import require_name
from lisbet.core.errors import OutputError
from lisbet.core.storage import lock as lock_module
from lisbet.core.storage.files import require_file_target, write_text
from lisbet.core.storage.folders import interrupted, kept, remove_unfinished_part, write_folder
from lisbet.core.storage.lock import locked
from lisbet.core.storage.results import lies_in, require_result_files
from lisbet.core.storage.write_log import LOG, WriteLog
from lisbet.data.hub import sample_data
from lisbet.data.hub._download import RemoteFile, bring, remove_download
from lisbet.models import model_dir
from lisbet.training.checkpoint.directory import CheckpointDirectory

OWN = ["models/own/model_config.yml", "models/own/weights/weights_last.pt"]
EMBEDDER = ["models/own-embedder/model_config.yml", "models/own-embedder/weights/weights_last.pt"]


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("template")
    write_dataset(place / "data", [40, 30])
    with contextlib.chdir(place):
        for run_id, seed in (("own", 1), ("other", 2)):
            main(["train_model", *TINY, "--task_ids=warp", "--epochs=2", "--train_sample=1e-6",
                  f"--run_id={run_id}", f"--seed={seed}", "data"])  # fmt: skip
        main(["export_embedder", *OWN])
    return place


@pytest.fixture
def here(template, tmp_path, monkeypatch) -> Path:
    """The folder with recordings, two runs and an embedder, which one stands in."""
    shutil.copytree(template, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def refused(capsys):
    def refused(*words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        said = capsys.readouterr().err
        assert caught.value.code == 2, said
        assert said.count("betman: error:") == 1
        return said

    return refused


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def rename(config: str, old: str, new: str) -> None:
    path = Path(config)
    path.write_text(path.read_text().replace(f"model_id: {old}", f"model_id: {new}"))


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "..", "...", ".a", "a/b", "/a", "a\nb", "a\0b", "a b", "a" * 129, "é" * 65]
)
def test_what_cannot_be_the_name_of_a_folder(name):
    with pytest.raises(ValueError, match="name"):
        require_name(name)


@pytest.mark.parametrize("name", ["a", "a.b", "A-b_1", "a" * 128, "é" * 64, "nul", "模型"])
def test_what_can_be_the_name_of_a_folder(name):
    assert require_name(name) == name


@pytest.mark.parametrize(
    "name", ["org/", "org/.", "org/..", "/x", "a/b/c", "org/a\nb", "org/" + "a" * 300, "../x", "/"]
)
def test_models_of_odd_names_are_not_fetched(name, here, refused):
    before = contents(here)
    said = refused("fetch_model", name, "--source=models/own", "--overwrite")
    assert "ORGANISATION/NAME" in said or "--model_id=" in said
    assert contents(here) == before


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", '"a\\nb"', "a" * 300, ".."])
def test_a_model_of_somebody_else_does_not_choose_the_folder(name, here, refused):
    rename(OWN[0], "own", name)
    before = contents(here.parent)
    for words in (["export_embedder"], ["evaluate_model", "data"], ["annotate_behavior", "data"]):
        assert "model_id" in refused(*words, *OWN)
    assert contents(here.parent) == before


@pytest.mark.parametrize(
    "words",
    [
        ["export_embedder", *OWN, "--output_path="],
        ["fetch_model", "org/x", "--source="],
        ["fetch_dataset", "SampleData", "--download_path="],
        ["plot_history", ""],
        ["convert_dataset", "data", ""],
    ],
)
def test_an_empty_path_is_no_folder(words, here, refused):
    before = contents(here)
    assert "empty" in refused(*words)
    assert contents(here) == before


# Models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["itself", "through a link", "by another path"])
def test_an_embedder_is_not_written_over_what_it_is_made_of(way, here, refused):
    shutil.rmtree("models/own-embedder")
    shutil.copytree("models/own", "models/own-embedder")
    folder = here / "models" / "own-embedder"
    if way == "through a link":
        (here / "link").symlink_to("models/own-embedder")
        folder = here / "link"
    elif way == "by another path":
        folder = here / "data" / ".." / "models" / "own-embedder"
    before = contents(here)
    for flags in ([], ["--overwrite"]):
        said = refused("export_embedder", folder / "model_config.yml", OWN[1], *flags)
        assert "which is read" in said
    assert contents(here) == before


def test_an_embedder_does_not_replace_a_run(here, refused):
    shutil.rmtree("models/own-embedder")
    with write_folder(here / "models/own-embedder", "run") as new:
        (new / "weights").touch()
    assert "it is a run that betman wrote" in refused("export_embedder", *OWN)
    assert "a run, not a model" in refused("export_embedder", *OWN, "--overwrite")
    assert Path("models/own-embedder/weights").exists()


def test_targets_are_checked_before_anything_is_read(here, refused, monkeypatch):
    main(["compute_embeddings", "data", *EMBEDDER])

    def never(*_: object) -> None:
        raise AssertionError("this takes long")

    monkeypatch.setattr(model_dir, "read_weights", never)
    monkeypatch.setattr(predict, "load_bank", never)
    assert "exists already" in refused("export_embedder", *OWN)
    said = refused("compute_embeddings", "data", *EMBEDDER)
    assert "results exist already: embeddings/r0/" in said
    assert "replace them with --overwrite" in said
    Path("embeddings/r1/features_lisbet_embedding.csv").write_text("edited")
    for flags in ([], ["--overwrite"]):
        said = refused("compute_embeddings", "data", *EMBEDDER, *flags)
        assert "embeddings/r1/features_lisbet_embedding.csv was not written by betman" in said


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("models/x", "."),
        ("models/x/models/y", "."),
        ("models/own", "models/own"),
        ("link", "."),
        ("models/own/../x", "."),
    ],
)
def test_a_model_is_not_fetched_into_its_source(source, target, here, refused):
    shutil.copytree("models/own-embedder", "models/x")
    shutil.copytree("models/own-embedder", "models/x/models/y")
    (here / "link").symlink_to("models/x")
    before = contents(here)
    for flags in ([], ["--overwrite"]):
        said = refused("fetch_model", "org/x", f"--source={source}", f"--output_path={target}",
                       *flags)  # fmt: skip
        assert "one is in the other" in said
    assert contents(here) == before


@pytest.mark.parametrize("place", ["README.md", "weights/weights_last.pt", "weights", "pipe.md"])
def test_only_regular_files_are_copied(place, here, refused):
    shutil.copytree("models/own-embedder", "source")
    path = here / "source" / place
    if place == "pipe.md":
        os.mkfifo(path)
    elif path.exists():
        path.rename(here / "secret")
        path.symlink_to(here / "secret")
    else:
        path.symlink_to("/etc/hostname")
    said = refused("fetch_model", "org/x", "--source=source")
    assert "a link or no regular file" in said
    assert place in said
    assert not Path("models/x").exists()


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["export_embedder", *OWN, "--overwrite"], "models/own-embedder"),
        (["fetch_model", "org/x", "--source=models/own"], "models/x"),
        (["fetch_dataset", "SampleData"], "datasets/SampleData"),
    ],
)
def test_the_second_of_two_at_once_is_told_who_writes(words, target, here, refused):
    with locked(here / target):
        assert f"is being written by process {os.getpid()} on" in refused(*words)
    assert lock_module.read_holder(Path(target).with_name(f".{Path(target).name}.lock")) is None
    assert not list(here.rglob("*.partial"))


def test_an_interrupted_replacement_is_said_and_finished(here, refused):
    """As a crash leaves it where two names cannot be swapped: the new copy is whole."""
    os.rename("models/own-embedder", "models/.own-embedder.0123456789abcdef.partial")
    said = refused("compute_embeddings", "data", *EMBEDDER)
    assert "was killed while it replaced it" in said
    assert "models/.own-embedder.0123456789abcdef.partial" in said
    assert "exists already" in refused("export_embedder", *OWN)
    assert Path(EMBEDDER[0]).is_file()
    main(["compute_embeddings", "data", *EMBEDDER])


def test_a_fetch_finishes_an_interrupted_one_first(here):
    main(["fetch_model", "org/x", "--source=models/own-embedder"])
    Path("models/x/notes.txt").write_text("mine")
    os.rename("models/x", "models/.x.0123456789abcdef.replaced")
    main(["fetch_model", "org/x", "--source=models/own-embedder", "--overwrite"])
    assert Path("models/x/notes.txt").read_text() == "mine"
    assert not list(Path("models").glob(".x*"))


# Results of recordings ----------------------------------------------------------------------------


def test_two_at_once_into_one_folder(tmp_path):
    """Both find nothing there; the later one replaces what the other one wrote, and only that."""
    accelerator = SimpleNamespace(is_main_process=True)
    one, other = (
        Results(
            tmp_path / "e",
            ["t.csv"],
            ["t.csv"],
            overwrite=False,
            accelerator=accelerator,
            settings={},
        )
        for _ in range(2)
    )
    for results in (one, other):
        results.require_writable(["a", "b"])
    for value, results in ((1, one), (2, other)):
        results.write("a", [pd.DataFrame([value]).to_csv])
        results.wait()
    assert pd.read_csv(tmp_path / "e/a/t.csv", index_col=0).to_numpy().tolist() == [[2]]
    (tmp_path / "e" / "b").mkdir()
    (tmp_path / "e" / "b" / "t.csv").write_text("theirs")
    with pytest.raises(OutputError, match="not written by betman"):
        one.write("b", [pd.DataFrame([1]).to_csv])
        one.wait()
    assert (tmp_path / "e" / "b" / "t.csv").read_text() == "theirs"


def test_only_the_main_process_checks(tmp_path):
    write_text(tmp_path / "a" / "t.csv", "", root=tmp_path)
    for is_main in (True, False):
        results = Results(
            tmp_path, ["t.csv"], ["t.csv"], overwrite=False,
            accelerator=SimpleNamespace(is_main_process=is_main), settings={},
        )  # fmt: skip
        with pytest.raises(OutputError) if is_main else contextlib.nullcontext():
            results.require_writable(["a"])


def test_many_results_are_named_in_one_message(tmp_path):
    paths = [tmp_path / f"{n}.csv" for n in range(8)]
    for path in paths[2:]:
        write_text(path, "")
    with pytest.raises(OutputError, match=r"2\.csv, .*4\.csv and 3 more; replace them with"):
        require_result_files(paths, root=tmp_path, overwrite=False)
    require_result_files(paths, root=tmp_path, overwrite=True)


# Checkpoints --------------------------------------------------------------------------------------


def test_the_same_weights_are_not_written_again(here, capsys):
    path = Path(OWN[1])
    before = path.stat()
    main(["consolidate_checkpoint", "models/own"])
    assert "already" in capsys.readouterr().out
    assert path.stat().st_ino == before.st_ino


def test_weights_of_another_step_need_overwrite(here, refused):
    older = CheckpointDirectory(Path("models/own")).published()[1].name
    words = ["consolidate_checkpoint", "models/own", f"--checkpoint={older}"]
    last = Path(OWN[1]).read_bytes()
    assert "--overwrite" in refused(*words)
    assert Path(OWN[1]).read_bytes() == last
    main([*words, "--overwrite"])
    state = torch.load(f"models/own/checkpoints/{older}/state.pt", weights_only=True)["model"]
    found = torch.load(OWN[1], weights_only=True)
    assert all(torch.equal(found[key], value) for key, value in state.items())
    Path(OWN[1]).write_bytes(b"theirs")
    assert "not written by betman" in refused(*words, "--overwrite")
    assert Path(OWN[1]).read_bytes() == b"theirs"


@pytest.mark.parametrize("where", ["there", "copied", "of the same name"])
def test_a_checkpoint_of_another_run_is_refused(where, here, refused):
    checkpoint = CheckpointDirectory(Path("models/other")).published()[0]
    if where == "copied":
        checkpoint = shutil.copytree(checkpoint, "models/own/checkpoints/step_00000077")
    elif where == "of the same name":
        shutil.rmtree("models/other")
        main(["train_model", *TINY, "--task_ids=warp", "--epochs=1", "--train_sample=1e-6",
              "--run_id=own", "--seed=3", "--output_path=b", "data"])  # fmt: skip
        checkpoint = CheckpointDirectory(Path("b/models/own")).published()[0]
    Path(OWN[1]).unlink()
    for flags in ([], ["--overwrite"]):
        said = refused("consolidate_checkpoint", "models/own", f"--checkpoint={checkpoint}", *flags)
        assert "a checkpoint of another run than models/own" in said
        assert ("its seed is 3, not 1" if where == "of the same name" else "'other'") in said
    assert not Path(OWN[1]).exists()


# Pictures -----------------------------------------------------------------------------------------


def test_pictures_are_replaced_only_on_request(here, refused):
    main(["plot_history", "models/own"])
    assert "training_history.html" in " ".join(os.listdir("models/own"))
    Path("models/own/training_history.png").unlink()
    said = refused("plot_history", "models/own")
    assert "training_history.html" in said
    assert not Path("models/own/training_history.png").exists(), "none, if not both"
    main(["plot_history", "models/own", "--overwrite"])
    for name in ("mine.png", "weights"):
        Path(name).write_text("theirs")
    Path("link.png").symlink_to("weights")
    for name in ("mine.png", "link.png"):
        for flags in ([], ["--overwrite"]):
            refused("plot_history", "models/own", f"--output_path={name}", *flags)
    assert Path("weights").read_text() == Path("mine.png").read_text() == "theirs"


# Datasets -----------------------------------------------------------------------------------------


def test_a_fetched_dataset_is_replaced_only_on_request(here, refused, monkeypatch, capsys):
    monkeypatch.setattr(sample_data, "LENGTHS", [30])
    main(["fetch_dataset", "SampleData"])
    Path("datasets/SampleData/notes.txt").write_text("mine")
    main(["fetch_dataset", "SampleData"])
    assert "is there already" in capsys.readouterr().err
    monkeypatch.setattr(sample_data, "LENGTHS", [30, 40])
    assert "is not this dataset" in refused("fetch_dataset", "SampleData")
    main(["fetch_dataset", "SampleData", "--overwrite"])
    names = sorted(os.listdir("datasets/SampleData"))
    assert names == [LOG, "dataset.yml", "notes.txt", "simulated00", "simulated01"]


def test_a_download_that_somebody_put_there_is_used_and_stays(tmp_path):
    file = RemoteFile("a.zip", "http://127.0.0.1:9/a.zip", hashlib.md5(b"whole").hexdigest())
    path = tmp_path / "a.zip"
    path.write_bytes(b"whole")
    assert bring(file, tmp_path, None) == path
    remove_download(file, tmp_path)
    assert path.read_bytes() == b"whole"
    path.write_bytes(b"their own")
    with pytest.raises(OutputError, match="not written by betman"):
        bring(file, tmp_path, None)
    assert path.read_bytes() == b"their own"


# What stands under it -----------------------------------------------------------------------------


def test_a_path_below_a_file_or_a_dangling_link_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, what in (("file", "is a file"), ("link", "a link that leads nowhere")):
        with pytest.raises(OutputError, match=what):
            require_file_target(tmp_path / name / "deep" / "file", overwrite=False)


def test_a_folder_lies_in_another_one_under_any_name(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to("loop")
    assert lies_in(tmp_path / "link" / "b", tmp_path / "a")
    assert lies_in(tmp_path / "a" / "absent", tmp_path / "link")
    assert not lies_in(tmp_path / "a", tmp_path / "a" / "b")
    assert not lies_in(tmp_path / "a", tmp_path / "loop")


def test_only_what_is_being_written_is_removed(tmp_path):
    (tmp_path / ".m.partial" / "cache").mkdir(parents=True)
    for place in (tmp_path, tmp_path / ".m.partial" / "cache"):
        with pytest.raises(ValueError, match="not in a folder that is being written"):
            remove_unfinished_part(place)
    with write_folder(tmp_path / "m", "model") as new:
        (new / "cache").mkdir()
        remove_unfinished_part(new / "cache")
        assert os.listdir(new) == [LOG]
    assert (tmp_path / ".m.partial" / "cache").exists()


def test_interrupted_replacements_are_those_of_missing_folders(tmp_path):
    assert interrupted(tmp_path / "absent" / "m") == []
    with write_folder(tmp_path / "m", "model"):
        pass
    assert interrupted(tmp_path / "m") == []
    (tmp_path / "m").rename(kept(tmp_path / "m"))
    (tmp_path / ".m.0123456789abcdef.partial").mkdir()
    assert interrupted(tmp_path / "m") == [kept(tmp_path / "m")]


def test_a_log_is_begun_once(tmp_path):
    notes = WriteLog(tmp_path)
    notes.begin("run")
    size = notes.path.stat().st_size
    WriteLog(tmp_path).begin("outputs")
    assert notes.path.stat().st_size == size
    assert WriteLog(tmp_path).kind == "run"
    notes.path.write_text('{"file": "a"}\n')
    WriteLog(tmp_path).begin("outputs")
    assert WriteLog(tmp_path).kind == "outputs"
    assert list(WriteLog(tmp_path).known.files) == ["a"]


def test_a_log_is_read_on_from_where_it_was(tmp_path):
    notes, other = WriteLog(tmp_path), WriteLog(tmp_path)
    notes.begin("outputs")
    for name in ("a", "é", "c"):
        other.add(tmp_path / name)
        assert name in notes.known.files
    with notes.path.open("ab") as stream:
        stream.write(b'{"file": "cut o')
    assert len(notes.known.files) == 3
    other.add(tmp_path / "d")
    assert set(notes.known.files) == {"a", "é", "c", "d"} == set(WriteLog(tmp_path).known.files)
    notes.path.rename(tmp_path / "old")
    notes.path.write_text("".join(f'{{"file": "x{n}"}}\n' for n in range(100)))
    assert len(notes.known.files) == 100
