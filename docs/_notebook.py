"""Run tutorial.ipynb and keep what its cells give: python docs/_notebook.py (make notebook)."""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("tutorial.ipynb")


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run the cells of a notebook, which work in a folder; an error of a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", coalesce_streams=True, resources=where
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata = {}  # the times at which cells ran
    return notebook


def main() -> None:
    """Replace the notebook by one with new outputs."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(NOTEBOOK, Path(folder))
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    sys.exit(main())
