"""The documentation is true: its commands are accepted, those of the first steps run, it builds."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import betman

from lisbet.cli import parse
from lisbet.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "launch" / "clusters.md",
                ROOT / "containers" / "README.md", *(ROOT / "docs").glob("*.md")])  # fmt: skip
QUICK = {
    "--epochs=5": "--epochs=1",
    "--train_sample=0.2": "--train_sample=0.01",
    "--train_sample=0.1": "--train_sample=0.01",
    "--dev_sample=0.2": "--dev_sample=0.01",
    "--window_size=60": "--window_size=8",
    "--num_layers=2": "--num_layers=1",
}
"""Options of the pages, and what the tests replace them with, to be quick."""
LONGEST_README = 150


def commands(page: Path, *, run: bool = False) -> list[list[str]]:
    """Return the betman commands of a page; with `run` only those of blocks that can be run."""
    text = page.read_text("utf-8")
    found = []
    for block in re.finditer(r"(<!-- test: .*? -->\n)?```(?:console|bash)\n(.*?)```", text, re.S):
        if run and block[1]:
            continue
        lines = block[2].replace("\\\n", " ").splitlines()
        for line in lines:
            if (line.startswith("$ betman ") or (not run and "betman train_model" in line)) \
                    and "ssh" not in line:  # fmt: skip
                words = shlex.split(line[line.index("betman") :], comments=True)
                end = next((n for n, w in enumerate(words) if w in (">", "|", "&&", "||")), None)
                found.append(words[1:end])
    return found


def test_pages_have_commands():
    assert sum(len(commands(page)) for page in PAGES) >= 40
    assert commands(ROOT / "README.md")[0] == ["doctor"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_accepted(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        if "…" in words or words[0].startswith("-") or any("=NUMBER" in w for w in words):
            continue  # it is shortened, or has a placeholder
        assert words[0] in COMMANDS, words
        job = parse(words)
        assert job is not None
        assert job.options is not None


@pytest.mark.parametrize("name", ["getting_started", "datasets"])
def test_the_commands_of_a_page_run(name, tmp_path):
    for words in commands(ROOT / "docs" / f"{name}.md", run=True):
        done = betman(*(QUICK.get(word, word) for word in words), cwd=tmp_path)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
    if name == "getting_started":
        assert (tmp_path / "embeddings" / "embeddings.png").stat().st_size > 10_000
        assert (tmp_path / "evaluations" / "behaviours" / "evaluation_report.yml").exists()


def test_the_readme_is_short_and_its_first_steps_are_those_of_the_page():
    readme = ROOT / "README.md"
    assert len(readme.read_text("utf-8").splitlines()) <= LONGEST_README
    steps = commands(ROOT / "docs" / "getting_started.md", run=True)
    of_readme = [words for words in commands(readme, run=True) if words[0] != "doctor"]
    assert len(of_readme) == 6
    assert [words for words in of_readme if words[0] != "plot_history"] == [
        words for words in steps if words in of_readme
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed")
def test_the_site_builds(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", f"--site-dir={tmp_path / 'site'}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "python_api" / "index.html").read_text("utf-8")
    assert "check_task" in page
    page = (tmp_path / "site" / "extending" / "index.html").read_text("utf-8")
    assert "--8" not in page
    for name in ("Approach", "GRUConfig", "frame_list", "Mirror", "LossCSV", "RECORDINGS"):
        assert name in page  # the files are included


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text("utf-8")):
        text = (page.parent / target if target else page).resolve().read_text("utf-8")
        titles = re.findall(r"^#+ (.*)$", text, re.M)
        slugs = [
            re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles
        ]
        assert anchor in slugs, f"{target}#{anchor}"
