"""Every dependency says from which version it is right, and make test-minimum installs that one."""

import tomllib

import pytest
from minimum_versions import PROJECT, constraints

PYPROJECT = tomllib.loads(PROJECT.read_text("utf-8"))["project"]


def test_constraints_are_the_oldest_versions():
    project = {
        "dependencies": ["torch>=2.10", "numpy>=2.0", "pandas>=2.2.2", "PyYAML>=6"],
        "optional-dependencies": {"remote": ["s3fs[x]>=2024.6"], "dev": ["pytest"]},
    }
    assert constraints(project, ["remote"]) == [
        "numpy==2.0.0.*", "pandas==2.2.2.*", "PyYAML==6.0.0.*", "s3fs==2024.6.0.*",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'pytest' has no oldest version"):
        constraints(project, ["dev"])


def test_every_dependency_has_an_oldest_version():
    extras = [name for name in PYPROJECT["optional-dependencies"] if name not in ("all", "dev")]
    found = constraints(PYPROJECT, extras)
    assert {"zarr==3.1.2.*", "numpy==2.0.0.*"} <= set(found)
    assert len(found) > 20
