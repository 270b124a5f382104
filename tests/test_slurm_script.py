"""``betman slurm_script``: the shipped batch script, filled in after its options were checked."""

import subprocess

import pytest
from conftest import TINY, write_dataset

from lisbet.cli import main
from lisbet.commands.machine.launch import FOLDERS

SHIPPED = next(folder for folder in FOLDERS if folder.is_dir()) / "slurm" / "train.sbatch"


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    write_dataset(tmp_path / "data", [60, 80, 50, 50])
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        main(["slurm_script", *TINY, *words])
        text = capsys.readouterr().out
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        return text

    return run


def words_of(text: str, **environment: str) -> list[str]:
    """What the shell makes of TRAIN."""
    inside = text[text.index("TRAIN=(") : text.index("\n)") + 2]
    said = subprocess.run(["bash", "-c", f'{inside}\nprintf "%s\\n" "${{TRAIN[@]}}"'], text=True,
                          env=environment, capture_output=True, check=True)  # fmt: skip
    return said.stdout.splitlines()


def test_what_was_given_is_in_its_place_and_nothing_else_changed(printed):
    text = printed("--nodes=2", "--gpus_per_node=4", "--time=1-00:00:00", "--account=mice",
                   "--container=my image.sif", "--select_coords=*;x,y;*", "--run_id=a", "-v",
                   "data")  # fmt: skip
    for line in ("#SBATCH --nodes=2", "#SBATCH --gpus-per-node=4", "#SBATCH --account=mice",
                 "#SBATCH --time=1-00:00:00", "#SBATCH --signal=B:USR1@120"):  # fmt: skip
        assert f"\n{line}\n" in text
    assert "CONTAINER='my image.sif'" in text
    assert set(words_of(text)) == {*TINY, "--select_coords=*;x,y;*", "--run_id=a", "--verbose=1",
                                   "data"}  # fmt: skip
    shipped = SHIPPED.read_text()
    body = shipped[shipped.index("(($#))") :]
    assert text.endswith(body)


def test_an_array_of_seeds_makes_runs_of_their_own(printed):
    text = printed("--seeds=3,7", "--run_id=a", "--gpus_per_node=0", "data")
    assert "#SBATCH --array=3,7\n" in text
    assert "gpus-per-node=" not in text
    words = words_of(text, SLURM_ARRAY_TASK_ID="7")
    assert {"--seed=7", "--run_id=a-seed7"} < set(words)


def test_a_file_of_options_is_resolved(printed, tmp_path):
    (tmp_path / "options.yml").write_text("epochs: 7\nsave_history: true\n")
    words = words_of(printed("--config=options.yml", "--run_id=a", "data"))
    assert {"--epochs=7", "--save_history=True"} < set(words)
    assert not [word for word in words if "config" in word]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data"], "--run_id is missing"),
        (["--run_id=a", "--gpus_per_node=3", "data"], "that do: 15, 18"),
        (["--run_id=a", "--time=soon", "data"], "expected MINUTES, HH:MM:SS"),
        (["--run_id=a", "--partition=a b", "data"], "one word"),
        (["--run_id=a", "--nodes=2", "--launch=cpu", "data"], "is for one process"),
        (["--run_id=a", "--launch=nope", "data"], "no launch configuration 'nope'"),
        (["--run_id=a", "--set=backbone.kernel=4", "away"], "has no setting kernel"),
        (
            ["--run_id=a", "--overwrite", "data"],
            "--overwrite cannot be used in a job that resumes itself",
        ),
        (["--run_id=a", "--seeds=1", "--seed=1", "data"], "--seeds and --seed"),
        (["--run_id=a", "--container=a", "--venv=b", "data"], "pass one of them"),
        (["--run_id=a", "--task_ids=cons", "data/r0"], "add recordings"),
        (["--run_id=a", "--num_machines=2", "data"], "has no option --num_machines"),
    ],
)
def test_refused(words, message, printed, capsys):
    with pytest.raises(SystemExit) as caught:
        printed(*words)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_recordings_that_are_elsewhere_are_noted(printed, capsys):
    main(["slurm_script", "--run_id=a", "away"])
    assert "away is not here" in capsys.readouterr().err
