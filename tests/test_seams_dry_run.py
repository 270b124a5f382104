"""--resume --dry_run says what the run itself would say, and writes nothing."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import TINY, hurt, write_dataset

from lisbet.cli import main
from lisbet.training.checkpoint.directory import CheckpointDirectory
from lisbet.training.checkpoint.manifest import DEEPSPEED, Manifest, hash_of
from lisbet.training.strategies.deepspeed import DeepSpeed

LINE = ["train_model", *TINY, "--warmup_epochs=0", "--task_ids=order", "--run_id=a"]
RUN = Path("models/a")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of two epochs, with a checkpoint after each."""
    place = tmp_path_factory.mktemp("trained")
    write_dataset(place / "data", [60, 60])
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        main([*LINE, "--epochs=2", "data"])
    return place


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(place: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.stat().st_mtime_ns, hash_of(path) if path.is_file() else "")
        for path in place.rglob("*")
    }


def said(place: Path, capsys, *words: str) -> str:
    before = snapshot(place)
    main([*LINE, "--resume", "--dry_run", *words, "data"])
    assert snapshot(place) == before
    out = capsys.readouterr().out
    assert out.endswith("dry run: nothing was written\n")
    return out


def test_the_checkpoint_that_it_would_be_resumed_from(place, capsys):
    newest, older = CheckpointDirectory(RUN).published()
    step = int(newest.name[5:])
    assert f"would be resumed from {newest}: step {step}, 2 of 3 epochs are finished" in said(
        place, capsys, "--epochs=3"
    )
    hurt(newest / "state.pt", "flipped")  # the run itself would take the older one
    assert f"would be resumed from {older}: step {step // 2}, 1 of 2 epochs" in said(
        place, capsys, "--epochs=2"
    )


def test_a_finished_run(place, capsys):
    assert "2 of 2 epochs are finished; the run would end at once" in said(
        place, capsys, "--epochs=2"
    )


def test_nothing_to_resume(place, capsys):
    line = [word for word in LINE if word != "--run_id=a"]
    main([*line, "--run_id=b", "--resume", "--dry_run", "data"])
    assert "models/b has no checkpoint, the run would start at step 0" in capsys.readouterr().out
    assert not Path("models/b").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("option", "--seed: was 1991, is 7"),
        ("recording", "the recordings are not those that models/a was trained on"),
        ("checkpoints", "all 2 checkpoints of models/a are damaged"),
        ("strategy", "DeepSpeed cannot resume"),
    ],
)
def test_the_errors_are_those_of_the_run(change, message, place, capsys, monkeypatch):
    words = ["--resume", "--epochs=3"]
    if change == "option":
        words.append("--seed=7")
    elif change == "recording":
        write_dataset(place / "data", [60, 61])
    elif change == "checkpoints":
        for folder in CheckpointDirectory(RUN).published():
            hurt(folder / "state.pt", "cut")
    else:
        for folder in CheckpointDirectory(Path("models/a")).published():
            manifest = Manifest.read(folder)
            other = manifest.model_copy(update={"strategy": "DeepSpeed ZeRO-1", "form": DEEPSPEED})
            other.write(folder)
        monkeypatch.setattr(DeepSpeed, "require_loadable", lambda *_: None)
    errors = []
    for dry in (["--dry_run"], []):
        before = snapshot(place)
        with pytest.raises(SystemExit) as caught:
            main([*LINE, *words, *dry, "data"])
        assert caught.value.code == 2
        after = snapshot(place)
        if not dry:  # the lock of the run was made and removed in this folder
            del before[str(place / "models")], after[str(place / "models")]
        assert after == before
        errors.append(re.sub(r"(?m)^[0-9-]+ [0-9:]+ ", "", capsys.readouterr().err))
    assert errors[0] == errors[1]
    assert message in errors[0]
