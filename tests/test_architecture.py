"""Imports go one way: a package may import from the packages below it, and from none above."""

import ast
from pathlib import Path

import lisbet

LAYERS = [  # from top to bottom; packages on one line do not import each other
    ["__main__"],
    ["cli"],
    ["commands", "contracts"],
    ["api"],
    ["training"],
    ["probing"],
    ["tasks"],
    ["data", "models"],
    ["options"],
    ["augment"],
    ["distributed"],
    ["core"],
    ["__init__"],
]
ROOT = Path(lisbet.__file__).parent


def imports():
    """(module, its package, imported package), for every import of the package within itself."""
    for file in sorted(ROOT.rglob("*.py")):
        if file == ROOT / "__init__.py":
            continue  # names what the package offers; modules take only its version
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
    level = {name: number for number, row in enumerate(LAYERS) for name in row}
    found = list(imports())
    assert len(found) > 100
    wrong = [
        f"{module} imports {target}"
        for module, package, target in found
        if package != target and level[target] <= level[package]
    ]
    assert not wrong


def test_every_package_has_a_layer():
    names = {name for row in LAYERS for name in row}
    assert {path.stem for path in ROOT.iterdir() if path.stem != "__pycache__"} == names


def test_folders_are_short():
    folders = [ROOT, *(path for path in ROOT.rglob("*") if path.is_dir())]
    entries = {
        str(folder.relative_to(ROOT)): sum(path.suffix == ".py" for path in folder.iterdir())
        for folder in folders
    }
    assert entries["data"] > 10
    assert not {folder: count for folder, count in entries.items() if count > 14}
