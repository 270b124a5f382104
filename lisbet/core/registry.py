"""Plug-ins: one file is one plug-in, named as its file.

Listing the names reads a folder and imports nothing, so that options are checked and help is
printed without loading torch.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from lisbet.core.errors import ConfigError, unknown

Plugin = TypeVar("Plugin")


class Registry(Mapping[str, Plugin], Generic[Plugin]):
    """The plug-ins of a package, loaded when they are asked for.

    Parameters
    ----------
    kind : str
        What a plug-in is, for messages ("task", "reader").
    package : str
        Package whose public modules (no leading underscore) are the plug-ins.
    attribute : str
        Name under which each module holds its plug-in.
    """

    def __init__(self, kind: str, package: str, attribute: str) -> None:
        self.kind, self.package, self.attribute = kind, package, attribute

    def __getitem__(self, name: str) -> Plugin:
        module = importlib.import_module(f"{self.package}.{self.require(name)}")
        plugin: Plugin = getattr(module, self.attribute)
        return plugin

    def __iter__(self) -> Iterator[str]:
        spec = importlib.util.find_spec(self.package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        modules = pkgutil.iter_modules(spec.submodule_search_locations)
        return iter(sorted(module.name for module in modules if not module.name.startswith("_")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def require(self, name: str) -> str:
        """Return `name` if there is such a plug-in.

        Raises
        ------
        ConfigError
            If there is none; the message offers the nearest and lists all.
        """
        if name not in tuple(self):
            raise ConfigError(unknown(self.kind, name, self))
        return name
