"""Imports go one way: a room may use the rooms below it, and none above."""

import ast
from pathlib import Path

import lisbet

ROOMS = [  # from top to bottom; rooms on one line do not know each other
    ["__main__"],
    ["cli"],
    ["slurm"],
    ["launch"],
    ["plots", "runs", "doctor"],
    ["training", "evaluation", "fetch_model"],
    ["predict"],
    ["run_split", "result_tables"],
    ["model_dir"],
    ["tasks"],
    ["data", "models"],
    ["options"],
    ["augment"],
    ["sidecar"],
    ["config"],
    ["drawing", "history_page", "frame_scores"],
    ["registry", "allocator", "transfer", "yaml_files", "processes", "option_text"],
    ["core"],
    ["redact"],
    ["errors"],
    ["__init__"],
]
ROOT = Path(lisbet.__file__).parent


def imports():
    """(module, room, imported room), for every import of the package within itself."""
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        for node in ast.walk(ast.parse(file.read_text())):
            targets = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lisbet":
                inner = (node.module or "").split(".")[1:]
                targets = [inner[0]] if inner else [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                targets = [
                    alias.name.split(".")[1]
                    for alias in node.names
                    if alias.name.startswith("lisbet.")
                ]
            for target in targets:
                yield "/".join(parts), parts[0], "__init__" if target == "__version__" else target


def test_imports_go_one_way():
    level = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    found = list(imports())
    assert len(found) > 100
    wrong = [
        f"{module} imports {target}"
        for module, room, target in found
        if room != target and level[target] <= level[room]
    ]
    assert not wrong


def test_every_file_has_a_room():
    rooms = {room for row in ROOMS for room in row}
    assert {path.stem for path in ROOT.iterdir() if path.stem != "__pycache__"} == rooms
