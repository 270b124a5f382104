"""Plug-ins: one file of a package is one plug-in; other packages add theirs by entry points.

Listing the names reads a folder and the metadata of installed packages, and imports nothing, so
that options are checked and help is printed without loading torch.

A package adds a plug-in in its pyproject.toml::

    [project.entry-points."lisbet.tasks"]
    speed = "my_package.speed:Speed"
"""

import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from lisbet.core.errors import ConfigError, unknown

Plugin = TypeVar("Plugin")


@functools.cache
def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name.

    Raises
    ------
    ConfigError
        If two packages use the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.value):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"two installed packages have a plug-in {point.name!r} in {group}: {other.value} "
                f"of {_package(other)} and {point.value} of {_package(point)}; uninstall one"
            )
    return found


def packages() -> dict[str, str]:
    """Return name and version of each installed package that offers plug-ins."""
    offering = {
        point.dist.name: point.dist.version
        for group in sorted(entry_points().groups)
        if group.startswith("lisbet.")
        for point in entry_points(group=group)
        if point.dist is not None
    }
    return dict(sorted(offering.items()))


class Registry(Mapping[str, Plugin], Generic[Plugin]):
    """The plug-ins of one kind, loaded when they are used.

    Parameters
    ----------
    kind : str
        What a plug-in is, for messages ("task", "reader").
    package : str
        Package whose public modules (no leading underscore) are the plug-ins.
    attribute : str
        Name under which each module holds its plug-in.
    group : str
        Entry points under which other packages offer plug-ins.
    base : type or tuple of type
        What a plug-in of another package must be: a subclass of this, or an instance. Without it,
        the registry only lists names.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        attribute: str,
        group: str,
        base: type | tuple[type, ...] = (),
    ) -> None:
        self.kind, self.package, self.attribute = kind, package, attribute
        self.group, self.base = group, base
        self._names: dict[Any, str] = {}

    def __getitem__(self, name: str) -> Plugin:
        self.require(name)
        others = installed(self.group)
        if name not in self.own:
            return self._loaded(others[name])
        if name in others:
            raise ConfigError(
                f"the installed package {_package(others[name])} has a {self.kind} named {name!r}, "
                "as betman itself has; rename it there, or uninstall the package"
            )
        module = importlib.import_module(f"{self.package}.{name}")
        plugin: Plugin = getattr(module, self.attribute)
        return plugin

    def __contains__(self, name: object) -> bool:
        return name in tuple(self)

    def __iter__(self) -> Iterator[str]:
        own = self.own
        return iter([*own, *sorted(installed(self.group).keys() - set(own))])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def require(self, name: str) -> str:
        """Return `name` if there is such a plug-in.

        Raises
        ------
        ConfigError
            If there is none; the message offers the nearest and lists all.
        """
        if name not in self:
            known = unknown(self.kind, name, self)
            raise ConfigError(
                f"{known}. If another package offers it, install that package in this environment"
            )
        return name

    def name_of(self, plugin: Plugin) -> str:
        """Return the name of a plug-in.

        Raises
        ------
        KeyError
            If it is not in the registry.
        """
        if plugin not in self._names:
            self._names |= {self[name]: name for name in self}
        return self._names[plugin]

    @functools.cached_property
    def own(self) -> list[str]:
        """Names of the plug-ins of this package."""
        spec = importlib.util.find_spec(self.package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        modules = pkgutil.iter_modules(spec.submodule_search_locations)
        return sorted(module.name for module in modules if not module.name.startswith("_"))

    def _loaded(self, point: EntryPoint) -> Plugin:
        """Load a plug-in of another package, and check that it is one.

        Raises
        ------
        ConfigError
            If it cannot be imported, or lacks something.
        """
        what = f"{self.kind} {point.name!r} of the installed package {_package(point)}"
        try:
            plugin: Any = point.load()
        except Exception as error:  # a plug-in can fail in any way
            raise ConfigError(
                f"the {what} cannot be imported ({point.value}: {type(error).__name__}: {error}); "
                "update or uninstall the package"
            ) from error
        bases = self.base if isinstance(self.base, tuple) else (self.base,)
        fits = isinstance(plugin, bases)
        if inspect.isclass(plugin):
            fits = issubclass(plugin, bases)
            if lacking := sorted(getattr(plugin, "__abstractmethods__", ())):
                raise ConfigError(f"the {what} is incomplete: it lacks {', '.join(lacking)}")
        if not fits:
            expected = " or ".join(base.__name__ for base in bases)
            raise ConfigError(f"the {what} ({point.value}) is not a {expected}")
        found: Plugin = plugin
        return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "?"
