"""The notebook of the documentation runs, and what is stored in it has no errors."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


@pytest.fixture
def notebook_module():
    spec = importlib.util.spec_from_file_location("_notebook", DOCS / "_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ipykernel 7 warns that the channels of the kernel, on this machine alone, are not encrypted.
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(notebook_module, tmp_path, monkeypatch):
    folder = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", folder, prepend=os.pathsep)
    done = notebook_module.executed(DOCS / "tutorial.ipynb", tmp_path)
    assert (tmp_path / "models/mice/weights/weights_last.pt").is_file()
    assert "<svg" in (tmp_path / "ethograms/simulated00/ethogram.svg").read_text()
    *_, table = done.cells
    (output,) = table.outputs
    assert "side_by_side" in output["data"]["text/plain"]
    for cell in done.cells:  # what a reader sees is what one that runs it sees
        for output in cell.get("outputs", ()):
            assert output.get("name") != "stderr" or "have not converged" in output["text"]


def test_the_stored_notebook_has_been_run():
    stored = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    nbformat.validate(stored)
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    pictures = [
        output
        for cell in cells
        for output in cell.outputs
        if {"image/png", "image/svg+xml"} & output.get("data", {}).keys()
    ]
    assert len(pictures) == 2
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]
    assert "/site-packages/" not in (DOCS / "tutorial.ipynb").read_text()
