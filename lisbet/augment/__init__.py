"""Augmentations: one file is one augmentation of training windows.

A module holds ``AUGMENTATION``, a subclass of Augmentation whose fields are its parameters. They
are parsed and checked before torch is loaded, so modules import it only where they apply.
"""

from collections.abc import Iterable

from pydantic import ValidationError

from lisbet.augment._augmentation import Augmentation, PointAugmentation, present
from lisbet.core.json_types import JsonDict
from lisbet.core.registry import Registry

AUGMENTATIONS: Registry[type[Augmentation]] = Registry(
    "augmentation", __name__, "AUGMENTATION", "lisbet.augmentations", Augmentation
)

__all__ = ["AUGMENTATIONS", "Augmentation", "PointAugmentation", "as_text", "parse", "present"]


def parse(text: str) -> tuple[Augmentation, ...]:
    """Read ``name:key=value:…,name:…``, in the order in which they are applied.

    Raises
    ------
    ConfigError
        On an unknown augmentation; the nearest name is offered.
    ValueError
        On an unknown, missing, malformed or out-of-range parameter.

    Examples
    --------
    >>> as_text(parse("all_perm_id:p=0.5, blk_perm_id:frac=0.2"))
    'all_perm_id:p=0.5,blk_perm_id:p=1.0:frac=0.2'
    """
    return tuple(_parse_one(part.strip()) for part in text.split(",")) if text.strip() else ()


def as_text(augmentations: Iterable[Augmentation]) -> str:
    """Write augmentations as `parse` reads them, with every parameter."""
    return ",".join(
        ":".join([augmentation.name, *(f"{key}={value}" for key, value in augmentation)])
        for augmentation in augmentations
    )


def _parse_one(text: str) -> Augmentation:
    name, *settings = text.split(":")
    if not name:
        raise ValueError("an augmentation is empty; expected name:key=value,name:key=value")
    kind = AUGMENTATIONS[name]
    given: JsonDict = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals and value):
            raise ValueError(f"{name}: expected key=value, got {setting!r}")
        if key in given:
            raise ValueError(f"{name}: {key} is given twice")
        if key not in kind.model_fields:
            raise ValueError(_stranger(name, key))
        given[key] = value
    try:
        return kind(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{problem['loc'][0]} is missing (it has no default)"
            if problem["type"] == "missing"
            else f"{problem['loc'][0]}={problem['input']}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ValueError(f"{name}: {problems}") from error


def _stranger(name: str, key: str) -> str:
    """Say that an augmentation has no such parameter, and which has."""
    owners = [other for other, kind in AUGMENTATIONS.items() if key in kind.model_fields]
    whose = f" ({key} belongs to {', '.join(owners)})" if owners else ""
    known = ", ".join(AUGMENTATIONS[name].model_fields)
    return f"{name} has no parameter {key!r}{whose}; it has {known}"
