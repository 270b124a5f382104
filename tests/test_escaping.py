"""Names and values of others in pages, cards and scripts: shown as they are, and never run."""

import html.parser
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from conftest import TINY, walk, write_recording

from lisbet.cli import main, parse
from lisbet.commands.pictures.history_page import RunHistory, page
from lisbet.core.config import Features
from lisbet.training.logging.model_card import code, escaped

ODD = "a<script>alert(1)</script>|`x`\n# b\n```\n$(touch ran)"


# Pages -------------------------------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    """Collects the tags and the attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}


def test_names_on_the_page_of_histories():
    def drawn(name: str, task: str) -> Tags:
        row = {"epoch": 0.0, "train_loss": 1.0, "dev_loss": 2.0,
               f"{task}_train_f1": 0.5, f"{task}_dev_f1": 0.4}  # fmt: skip
        return Tags(page([RunHistory(name, [row, row | {"epoch": 1.0}])]))

    plain = drawn("run", "cons")
    for odd in (ODD, '"><img src=x onerror=alert(1)>', "' onload='x", "</title><b>", "{x}", "&lt;"):
        found = drawn(odd, odd)
        assert (found.tags, found.names) == (plain.tags, plain.names)


# Model cards -------------------------------------------------------------------------------------


def test_text_and_code_in_markdown():
    assert escaped("mouse_1 of 2") == "mouse_1 of 2"
    assert escaped("_a_ *b* [c](d) e|f\n# g") == r"\_a\_ \*b\* \[c\](d) e\|f # g"
    assert escaped("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert escaped("- a") == r"\- a"
    assert code("a") == "`a`"
    assert code("`a``b") == "``` `a``b ```"
    assert "\n" not in code("a\n```\nb")


def test_a_card_with_odd_names(tmp_path, monkeypatch, capsys):
    odd = ODD.replace("/", "").replace("\n", " ")  # a folder is named by it
    features = Features(
        individuals=(ODD, "m`1"), keypoints=("a|b", "<img src=x>"), space=("x", "y")
    )
    for number in range(2):
        folder = tmp_path / "data`x" / f"{odd}{number}"
        write_recording(folder, walk(60, features, number), features)
    monkeypatch.chdir(tmp_path)
    main(["train_model", *TINY, "--epochs=1", "--task_ids=cons", "--train_sample=0.1",
          f"--data_filter={odd[:9]}*", "--run_id=a", "data`x"])  # fmt: skip
    capsys.readouterr()
    text = (tmp_path / "models" / "a" / "README.md").read_text()
    outside = re.sub(r"(?s)```console\n.*?\n```\n", "", text)
    outside = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", outside.replace(r"\`", ""))
    assert "<" not in outside
    assert "script" in outside  # it is named
    for line in outside.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) == 3, line
    assert not re.search(r"^# b", text, re.MULTILINE)
    command = re.search(r"\$ betman (compute_embeddings .*)", text)
    words = subprocess.run(["bash", "-c", f'printf "%s\\n" {command[1]}'], capture_output=True,
                           text=True, check=True).stdout.splitlines()  # fmt: skip
    assert words[1] == "data`x"
    assert not (tmp_path / "ran").exists()


def test_folders_with_odd_names_among_the_runs(tmp_path, monkeypatch, capsys):
    for name in ("[", "[red]a", "[link=x"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "run_config.yml").write_text("options: {}\n")
    (tmp_path / "models" / "[red]a" / "status.json").write_text('{"state": "[/x]"}')
    monkeypatch.chdir(tmp_path)
    main(["runs"])
    said = capsys.readouterr().out
    assert all(name in said for name in ("[ ", "[red]a", "[link=x", "unknown"))


# Batch scripts -----------------------------------------------------------------------------------

VALUES = [
    "$(touch ran)", "`touch ran`", "a'b", 'a"b', "a;touch ran;b", "a&touch ran", "a\ntouch ran\nb",
    "50%j", "\\n", "a b  c", "*", "~", "!x", "#x", "-x", "${HOME}", "a\n#SBATCH --nodes=9",
    'x\nVENV="${VENV:-}"\nTRAIN=()', "é☃", ")", "a|touch ran", "<ran", ">ran",
]  # fmt: skip
STUB = """#!/usr/bin/env bash
printf '%s\\0' "$@" > "$RECORD.$(basename "$0")"
"""
SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
exec nice -n 0 -- "$@"
"""
TEXTS = ["data_filter", "load_backbone_weights", "output_path", "wandb_project", "wandb_notes",
         "wandb_tags"]  # fmt: skip


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """Programs that a job calls: they note the words that they are given."""
    monkeypatch.chdir(tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {"betman": STUB, "apptainer": STUB, "srun": SRUN, "scontrol": STUB}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "n1", "RECORD": str(tmp_path / "words"), "HOME": str(tmp_path),
        "SLURM_ARRAY_TASK_ID": "3",
    }  # fmt: skip

    def run(script: str, program: str = "betman") -> list[str]:
        done = subprocess.run(["bash", "-s"], input=script, cwd=tmp_path, env=environment,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not list(tmp_path.rglob("ran"))
        record = Path(f"{environment['RECORD']}.{program}")
        words = record.read_bytes().decode().split("\0")[:-1]
        record.unlink()
        return words

    return run


@pytest.fixture
def script(monkeypatch, capsys):
    """Print a script without the slow checks of the options, which are tested elsewhere."""
    monkeypatch.setattr("lisbet.commands.machine.slurm_script._check", lambda *rest: None)

    def print_script(*words: str) -> str:
        main(["slurm_script", "--run_id=a", *words])
        return capsys.readouterr().out

    return print_script


@pytest.mark.parametrize("value", VALUES)
def test_every_text_comes_to_betman_as_it_was_given(value, script, stubs):
    given = ["--wandb", *(f"--{name}={value}" for name in TEXTS), value]
    given = [word for word in given if word != "-x"] + (["./-x"] if value == "-x" else [])
    text = script(*given)
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    shown = text.partition("set -euo pipefail")[0]
    assert [line for line in shown.splitlines() if line.startswith("#SBATCH")][:3] == directives[:3]
    command, *words = stubs(text)
    assert command == "train_model"
    assert (
        parse(["train_model", *words]).options
        == parse(["train_model", "--run_id=a", "--resume", *given]).options
    )


def test_the_array_of_seeds(script, stubs):
    words = stubs(script("--seeds=3,4", "--wandb", "--wandb_notes=$(touch ran)", "data"))
    assert {"--seed=3", "--run_id=a-seed3", "--wandb_notes=$(touch ran)"} < set(words)


@pytest.mark.parametrize("value", VALUES)
def test_where_betman_is(value, script, stubs, tmp_path):
    place = tmp_path / value
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"")
    words = stubs(script(f"--container={value}", f"--bind={value}", "data"), "apptainer")
    cwd = str(tmp_path)
    image = "./-x" if value == "-x" else value  # or it would be an option
    assert words[:7] == ["exec", "--bind", f"{cwd},{value}", "--pwd", cwd, image, "betman"]
    place.unlink()
    betman = place / "bin" / "betman"
    betman.parent.mkdir(parents=True)
    betman.write_text(STUB)
    betman.chmod(betman.stat().st_mode | stat.S_IXUSR)
    assert stubs(script(f"--venv={value}", "data"))[0] == "train_model"


@pytest.mark.parametrize("name", ["job_name", "partition", "account", "qos", "mem", "time"])
def test_directives_are_single_words(name, script, capsys):
    for value in ("a b", "a\n#SBATCH --nodes=9", "a\nb", 'a"b', "a'b", "a#b", "a\tb", "a\\b",
                  "a\x00b", "a\u2028b", " "):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            script(f"--{name}={value}", "data")
        assert caught.value.code == 2
        assert f"--{name}=" in capsys.readouterr().err
    if name == "job_name":
        for value in ("../../a", "a%j"):
            with pytest.raises(SystemExit):
                script(f"--{name}={value}", "data")
            assert "a file has its name" in capsys.readouterr().err
