"""Print the oldest versions that pyproject.toml allows, as constraints for pip.

Used by ``make test-minimum``. PyTorch is left out: the Makefile names the release to install.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=(\d+(?:\.\d+)*)")


def constraints(project: dict[str, Any], extras: list[str]) -> list[str]:
    """Return a constraint for each dependency of a project and of some of its extras.

    Parameters
    ----------
    project : dict
        The table ``project`` of pyproject.toml.
    extras : list of str
        Names of optional dependencies.

    Returns
    -------
    list of str
        ``name==1.2.0.*``: the oldest release, also where it was published again as a post-release.

    Raises
    ------
    ValueError
        If a dependency is not written ``name>=version``.
    """
    listed = list(project["dependencies"])
    for extra in extras:
        listed += project["optional-dependencies"][extra]
    found = []
    for text in listed:
        match = REQUIREMENT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} has no oldest version; expected name>=version")
        name, oldest = match.groups()
        parts = [*oldest.split("."), "0", "0"][: max(3, oldest.count(".") + 1)]
        if name != "torch":
            found.append(f"{name}=={'.'.join(parts)}.*")
    return found


if __name__ == "__main__":
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    print("\n".join(constraints(project, sys.argv[1:])))
