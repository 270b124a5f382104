"""Only lisbet/core/storage removes, renames or replaces files, or opens them for writing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import lisbet

ROOT = Path(lisbet.__file__).parent
MODULES = {
    "os": {"remove", "unlink", "rename", "renames", "replace", "rmdir", "removedirs", "truncate",
           "link", "symlink"},
    "shutil": {"rmtree", "move", "copy", "copy2", "copyfile", "copytree"},
}  # fmt: skip
METHODS = {"unlink", "rmdir", "rename", "write_text", "write_bytes", "touch", "symlink_to",
           "hardlink_to", "rmtree"}  # fmt: skip
IN_NEW = "into a new file or folder that core has made and named"
ALLOWED = {
    # call, by file: why it may stand outside
    ("core/yaml_files.py", "path.write_text"): IN_NEW,
    ("training/checkpoint/writer.py", "(folder / PROGRESS).write_text"): IN_NEW,
    ("training/checkpoint/manifest.py", "(folder / name).write_bytes"): IN_NEW,
    ("training/strategies/deepspeed.py", "(folder / name).open"): IN_NEW,
    ("training/datasets/sample_hashes.py", "temporary.open"): IN_NEW,
    ("training/logging/history.py", "temporary.open"): IN_NEW,
    ("commands/applying/result_tables.py", "path.open('wb')"): IN_NEW,
    ("models/model_dir.py", "temporary.write_bytes"): IN_NEW,
    ("commands/hub/fetch_model.py", "shutil.copyfile"): IN_NEW,
    ("commands/motifs/segment.py", "path.write_text"): IN_NEW,
    ("commands/motifs/prototypes.py", "temporary.open('wb')"): IN_NEW,
    ("data/hub/_download.py", "part.open('ab')"): "a file that is noted in its folder's log",
    ("training/datasets/banks.py", "place.unlink"): "shared memory that mkstemp made",
    ("training/datasets/banks.py", "os.unlink(name)"): "shared memory that mkstemp made",
    ("training/strategies/deepspeed.py", "open(os.devnull, 'w')"): "the null device",
    ("cli/output.py", "open(os.devnull, 'w')"): "the null device",
    ("data/record.py", "array.rename(plural)"): "dimensions",
}


def calls(tree: ast.AST) -> Iterator[str]:
    """Calls that change files, as they are written."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        text, function = ast.unparse(node), node.func
        if isinstance(function, ast.Attribute):
            owner = ast.unparse(function.value)
            if function.attr in MODULES.get(owner, ()) or (
                owner not in MODULES and function.attr in METHODS
            ):
                yield text
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in ("open", "fdopen", "FileIO"):
            modes = [argument.value for argument in (*node.args, *(k.value for k in node.keywords))
                     if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                     and len(argument.value) <= 3]  # fmt: skip
            if any(set(mode) & set("wax+") and set(mode) <= set("rwaxbt+") for mode in modes):
                yield text


def test_only_one_place_changes_files():
    found = [
        (file.relative_to(ROOT).as_posix(), call)
        for file in sorted(ROOT.rglob("*.py"))
        if file.relative_to(ROOT).parts[:2] != ("core", "storage")
        for call in calls(ast.parse(file.read_text()))
    ]
    used = {key for key in ALLOWED for file, call in found if file == key[0] and key[1] in call}
    assert used == set(ALLOWED)  # nothing stands here that is not needed
    strange = [
        f"{file}: {call}"
        for file, call in found
        if not any(file == place and text in call for place, text in ALLOWED)
    ]
    assert not strange, "\n".join(strange)


def test_the_search_finds_what_it_is_for():
    text = """
os.replace(a, b); shutil.rmtree(x); path.unlink(); open(p, "w"); p.open("ab"); p.open()
open(p); text.replace("a", "b"); path.rename(other); os.fdopen(h, "wb"); io.FileIO(p, "w")
"""
    assert len(list(calls(ast.parse(text)))) == 8
