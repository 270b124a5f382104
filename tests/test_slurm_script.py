"""``betman slurm_script``: the shipped batch script, filled in after its options were checked."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, write_dataset

from lisbet.cli import main
from lisbet.commands.machine.container_mounts import Mount, hidden, mounts_of
from lisbet.commands.machine.job_warnings import labels_of, warnings_of
from lisbet.commands.machine.launch import FOLDERS, Launch
from lisbet.core.errors import ConfigError
from lisbet.distributed import environment
from lisbet.options import SlurmScriptOptions

PLAIN = ("-e", "SC2016")
"""A $ in single quotes, which is how a value is kept from the shell."""
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
SHIPPED = next(folder for folder in FOLDERS if folder.is_dir()) / "slurm" / "train.sbatch"


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("X_TOKEN", "secret-12345")
    write_dataset(tmp_path / "data", [60, 80, 50, 50])
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        main(["slurm_script", *TINY, *words])
        text = capsys.readouterr().out
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        if SHELLCHECK.exists():
            checked = subprocess.run([SHELLCHECK, *PLAIN, "-"], input=text, text=True, check=False,
                                     capture_output=True)  # fmt: skip
            assert checked.returncode == 0, checked.stdout
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
        (["--run_id=a", "--gres=gpu:a100:many", "data"], "expected NAME, NAME:COUNT"),
        (["--run_id=a", "--gres=gpu:2\n#SBATCH", "data"], "expected NAME, NAME:COUNT"),
        (["--run_id=a", "--gres=gpu:0", "data"], "expected a number of GPUs from 1"),
        (["--run_id=a", "--gres=gpu:2", "--gpus_per_node=2", "data"], "both give the GPUs"),
        (["--run_id=a", "--gres=gpu:a100:3", "data"], "that do: 15, 18"),
        (["--run_id=a", "--mail=me", "data"], "one address such as"),
        (["--run_id=a", "--sbatch=-p gpu", "data"], "write the long form"),
        (["--run_id=a", "--sbatch=--nodelist n1", "data"], "got 'n1'"),
        (["--run_id=a", "--sbatch=--exclusive --time=5", "data"], "use --time of slurm_script"),
        (["--run_id=a", "--sbatch=--gpus=5", "data"], "use --gpus_per_node or --gres"),
        (["--run_id=a", "--sbatch=--signal=B:USR1@9", "data"], "saves the run before the time"),
        (["--run_id=a", "--sbatch=--comment='a", "data"], "a quote is not closed"),
        (["--run_id=a", "--sbatch=--comment='a\n#SBATCH --x'", "data"], "line breaks cannot"),
        (["--run_id=a", "--sbatch=--mail-type=ALL", "--mail=a@b.c", "data"], "exclude each other"),
        (["--run_id=a", "--setup=module load 'x", "data"], "expected complete lines of the shell"),
        (["--run_id=a", "--setup=}; echo out; {", "data"], "expected complete lines of the shell"),
        (["--run_id=a", "--setup=cat << END", "data"], "expected complete lines of the shell"),
        (["--run_id=a", "--setup=module load a \\", "data"], "it ends with a backslash"),
        (["--run_id=a", "--setup=export X_TOKEN=secret-12345", "data"], "a password or token"),
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


def test_resources_and_further_options_of_sbatch_are_lines_of_the_script(printed):
    text = printed("--gres=gpu:a100:4,nvme:100", "--constraint=[rack1|rack2]&nvlink",
                   "--mail=me@lab.org", "--run_id=a",
                   "--sbatch=--exclusive --comment='two words' --nodelist=n[1-2]",
                   "data")  # fmt: skip
    head = text[: text.index("set -euo")].splitlines()
    assert {"#SBATCH --gres=gpu:a100:4,nvme:100", "#SBATCH --constraint=[rack1|rack2]&nvlink",
            "#SBATCH --mail-user=me@lab.org", "#SBATCH --mail-type=END,FAIL,REQUEUE",
            "#SBATCH --exclusive", '#SBATCH --comment="two words"',
            "#SBATCH --nodelist=n[1-2]"} < set(head)  # fmt: skip
    assert "gpus-per-node" not in "".join(head)
    names = [line.partition("=")[0] for line in head if line.startswith("#SBATCH")]
    assert len(names) == len(set(names))


HARMFUL = "$(touch hurt) `touch hurt` ; touch hurt #'\" }"


def test_no_value_is_run_as_a_command_while_the_script_is_read(printed, tmp_path):
    """What was typed for one value must come to the shell as that value."""
    text = printed("--run_id=a", f"--container={HARMFUL}", f"--bind={HARMFUL}",
                   f"--output_path={HARMFUL}", "--sbatch=--comment='$(touch hurt)'",
                   "data")  # fmt: skip
    end = text.index("gpus=")
    shown = '\nprintf "%s\\n" "$CONTAINER" "$BIND" "${TRAIN[@]}"'
    said = subprocess.run(["bash", "-c", text[:end] + shown], text=True, capture_output=True,
                          check=True, env={"PATH": os.environ["PATH"]})  # fmt: skip
    lines = said.stdout.splitlines()
    assert lines[:2] == [HARMFUL, HARMFUL]
    assert f"--output_path={HARMFUL}" in lines
    assert not (tmp_path / "hurt").exists()


FAKES = {
    "srun": 'for word in "$@"; do printf "%s\\n" "$word"; done\necho "SETUP=${SETUP:-}"\n'
    'echo "HOOK=${HOOK:-}"\necho "CONDA_PREFIX=${CONDA_PREFIX:-}"\necho "PATH=$PATH"\n',
    "scontrol": "echo node1\n",
}


def job(script: str, place: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script as SLURM would, with an srun that prints its words and the environment."""
    tools = place / "tools"
    tools.mkdir(exist_ok=True)
    for name, body in FAKES.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (tools / name).chmod(0o755)
    values = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(place), "SLURM_JOB_ID": "7",
              "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]",
              "SLURM_CPUS_PER_TASK": "2"}  # fmt: skip
    return subprocess.run(["bash", "-c", script], cwd=place, env=values | more, text=True,
                          capture_output=True, check=False)  # fmt: skip


def environment_folder(place: Path, *, conda: bool) -> Path:
    """Make what stands in for an environment: a betman, and what conda writes."""
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "betman").write_text("#!/bin/sh\n")
    (place / "bin" / "betman").chmod(0o755)
    if conda:
        (place / "conda-meta").mkdir()
        (place / "etc" / "conda" / "activate.d").mkdir(parents=True)
        hook = place / "etc" / "conda" / "activate.d" / "libs.sh"
        hook.write_text('export HOOK="${CONDA_PREFIX##*/}$NOT_SET"\n')
    return place


def test_lines_of_setup_run_before_betman_is_looked_for(printed, tmp_path):
    environment_folder(tmp_path / "env", conda=False)
    text = printed("--run_id=a", "--nodes=2", "--gpus_per_node=0", "--venv=env",
                   "--setup=# modules\nexport SETUP=\"$UNSET a;b\"; true\nTRAIN=()",
                   "data")  # fmt: skip
    # The last line is code of the user's, and no place for the options that were given.
    assert "\nTRAIN=()\n}\n" in text
    assert "--run_id=a\n  data\n)" in text
    text = printed("--run_id=a", "--nodes=2", "--gpus_per_node=0", "--venv=env",
                   "--setup=# modules\nexport SETUP=\"$UNSET a;b\"; true", "data")  # fmt: skip
    done = job(text, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nSETUP= a;b\n" in done.stdout
    assert f"PATH={tmp_path}/env/bin:" in done.stdout
    assert f"{tmp_path}/env/bin/betman\ntrain_model\n--launch=ddp\n--num_processes=2" in done.stdout
    failing = printed("--run_id=a", "--venv=env", "--setup=module load nothing; echo on", "data")
    done = job(failing, tmp_path)
    assert done.returncode == 127
    assert "a line of set_up failed" in done.stderr
    assert "on\n" not in done.stdout


def test_a_conda_environment_is_activated_without_conda(printed, tmp_path):
    environment_folder(tmp_path / "env of mine", conda=True)
    text = printed("--run_id=a", "--gpus_per_node=0", "--venv=env of mine", "data")
    done = job(text, tmp_path, SLURM_JOB_NUM_NODES="1")
    assert done.returncode == 0, done.stderr
    assert "\nHOOK=env of mine\n" in done.stdout  # by the activation script of a package
    assert f"\nCONDA_PREFIX={tmp_path}/env of mine\n" in done.stdout
    assert f"PATH={tmp_path}/env of mine/bin:" in done.stdout


def test_the_nodes_are_tested_by_the_same_script(printed, tmp_path):
    environment_folder(tmp_path / "env", conda=False)
    text = printed("--run_id=a", "--nodes=2", "--gpus_per_node=0", "--venv=env", "data")
    done = job(text, tmp_path, TEST_NODES="yes")
    assert "betman\ndoctor\n--nodes\n--launch=ddp\n--num_processes=2\n" in done.stdout
    assert "train_model" not in done.stdout


def warned(tmp_path, **given) -> list[str]:
    options = SlurmScriptOptions(run_id="a", **given)
    train = options.model_copy(update={"data_path": options.data_path})
    return list(warnings_of(options, train, Launch.find(options.launch)))


@pytest.mark.parametrize(
    ("time", "max_time", "said"),
    [
        ("04:00:00", "3:57", ""),
        ("04:00:00", "3:58", "leaves no margin below the job's --time=04:00:00"),
        ("90", "1:30", "is not shorter than the job's --time=90"),  # minutes
        ("1-12", "35:57", ""),  # a day and 12 hours
        ("1-00:10", "24:08", "at most --max_time=24:07"),
        ("30:00", "0:30", "is not shorter"),  # minutes and seconds
        ("0", "99:00", ""),  # no limit
    ],
)
def test_max_time_must_end_before_the_job(time, max_time, said, tmp_path):
    found = warned(tmp_path, time=time, max_time=max_time, data_path="data")
    assert [said in text for text in found] == ([True] if said else [])


def test_what_sbatch_does_not_know_is_warned_of(tmp_path):
    (text,) = warned(tmp_path, sbatch="--exclusive --exclud=n3", data_path="data")
    assert "--exclud; did you mean --exclude?" in text


def test_links_are_followed_as_in_the_container(tmp_path):
    """The tree on the host: home/lab/data -> /store, home/lab/near -> ../store, store/link."""
    store, home = tmp_path / "store", tmp_path / "home"
    (store / "mice").mkdir(parents=True)
    (home / "lab").mkdir(parents=True)
    (home / "lab" / "data").symlink_to(store)
    (home / "lab" / "near").symlink_to("../../store/mice")
    (home / "lab" / "inside").symlink_to(home / "lab")
    (home / "lab" / "loop").symlink_to("loop")
    only_home = [Mount(home, home)]
    assert hidden(home / "lab", only_home) is None
    assert hidden(home / "lab" / "inside" / "x", only_home) is None
    assert hidden(home / "lab" / "data" / "mice", only_home) == store / "mice"
    assert hidden(home / "lab" / "near", only_home) == store / "mice"
    assert hidden(home / "lab" / "loop", only_home) is not None
    assert hidden(store, only_home) == store
    both = mounts_of(f"{home},{store}:{store}:ro", {})
    assert hidden(home / "lab" / "data" / "mice", both) is None
    # Mounted elsewhere, the absolute target of the link is missing; the relative one is, too.
    moved = [Mount(home, Path("/h")), Mount(store, Path("/s"))]
    assert hidden(Path("/h/lab/data"), moved) == store
    assert hidden(Path("/h/lab/near"), moved) == Path("/store/mice")
    # What is mounted by a link is there under the name of the link.
    link = home / "lab" / "data"
    assert hidden(link / "mice", [Mount(link, link)]) is None


def test_data_outside_the_container_are_warned_of(printed, tmp_path, monkeypatch, capsys):
    """Links of the data path, of its parents, and of recordings in it."""
    outside = Path("/var/lib") / f"lisbet-{os.getpid()}"
    try:
        outside.mkdir()
    except OSError:
        pytest.skip("no place that a container does not mount")
    try:
        monkeypatch.setenv("HOME", str(tmp_path))
        shutil.copytree("data/r0", outside / "r0")
        Path("data/r9").symlink_to(outside / "r0")
        Path("link").symlink_to(outside)
        given = {"container": "x.sif", "gpus_per_node": 0}
        (text,) = warned(tmp_path, data_path="data", **given)
        assert f"data/r9 leads through a link to {outside}/r0, outside" in text
        assert f"pass --bind={outside}/r0," in text
        (text,) = warned(tmp_path, data_path="link/r0", bind="/opt", **given)
        assert f"--bind=/opt,{outside}/r0," in text
        assert warned(tmp_path, data_path="data,link/r0", bind=str(outside), **given) == []
        (text,) = warned(tmp_path, data_path="/away/mice", **given)
        assert "/away/mice is outside what the container mounts" in text
        said = printed("--run_id=a", "--container=x.sif", "--gpus_per_node=0", "data")
        assert "CONTAINER='x.sif'" in said  # it is written all the same
    finally:
        shutil.rmtree(outside)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"lisbet.deepspeed": "no"}, "has no DeepSpeed"),
        ({"lisbet.deepspeed": "yes"}, ""),
        ({}, "it is not known whether"),
        (None, "it is not known whether"),
    ],
)
def test_an_image_without_deepspeed_is_warned_of(labels, said, tmp_path, monkeypatch):
    """A stand-in for apptainer, which prints labels in its JSON."""
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "x.sif"
    image.touch()
    answer = json.dumps({"data": {"attributes": {"labels": labels}}, "type": "container"})
    program = tmp_path / "apptainer"
    code = "exit 1" if labels is None else f"echo '{answer}'"
    program.write_text(f'#!/bin/sh\ntest "$1 $4" = "inspect {image}" || exit 3\n{code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("APPTAINER", str(program))
    assert labels_of(image) == (labels or {})
    given = {"data_path": "data", "container": image, "gpus_per_node": 2}
    found = warned(tmp_path, launch="deepspeed_zero2", **given)
    assert [said in text for text in found] == ([True] if said else [])
    assert warned(tmp_path, launch="ddp", **given) == []


def test_the_job_ends_at_its_start_in_an_image_without_deepspeed(monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/x.sif")
    with pytest.raises(
        ConfigError, match=r"DeepSpeed is not in the image /images/x\.sif"
    ) as caught:
        environment.require_deepspeed()
    assert caught.value.exit_code == 2  # which train.sbatch does not repeat
    monkeypatch.delenv("APPTAINER_CONTAINER")
    monkeypatch.delenv("SINGULARITY_CONTAINER", raising=False)
    with pytest.raises(ConfigError, match="pip install"):
        environment.require_deepspeed()


def test_an_environment_without_betman_is_warned_of(tmp_path):
    (tmp_path / "env" / "conda-meta").mkdir(parents=True)
    (text,) = warned(tmp_path, venv=tmp_path / "env", data_path="data")
    assert "there is no betman in" in text
    assert "conda environment" in text
