"""Values of options that users write as one word, such as ``500steps`` or ``1024x570``.

Each has ``parse``, and prints as that same word, so that a file of options reads back as it was
written.
"""

import re
from decimal import Decimal
from typing import Self

from pydantic import Field

from lisbet.core.config import Config
from lisbet.core.option_text import plain_number, words_of

ALL = "*"
MINMAX, ROBUST = "minmax", "robust"


def _three_parts(text: str, example: str) -> list[str]:
    parts = [part.strip() for part in text.split(";")]
    if len(parts) != 3 or "" in parts:
        raise ValueError(f"expected INDIVIDUALS;AXES;KEYPOINTS such as {example!r}, got {text!r}")
    return parts


class Selection(Config):
    """Which individuals, spatial axes and keypoints to keep, in this order; None keeps all."""

    individuals: tuple[str, ...] | None = None
    space: tuple[str, ...] | None = None
    keypoints: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``INDIVIDUALS;AXES;KEYPOINTS``, each a comma-separated list or ``*``.

        Examples
        --------
        >>> Selection.parse("m1,m2;x,y;*").space
        ('x', 'y')
        """
        parts = _three_parts(text, "resident,intruder;x,y;*")
        names = [None if part == ALL else words_of(part) for part in parts]
        for chosen in names:
            if chosen is not None and len(set(chosen)) < len(chosen):
                raise ValueError(f"{','.join(chosen)!r} names something twice")
        return cls(individuals=names[0], space=names[1], keypoints=names[2])

    def __str__(self) -> str:
        parts = (self.individuals, self.space, self.keypoints)
        return ";".join(ALL if part is None else ",".join(part) for part in parts)


class Renames(Config):
    """New names of individuals, spatial axes and keypoints, as (old, new) pairs."""

    individuals: tuple[tuple[str, str], ...] = ()
    space: tuple[tuple[str, str], ...] = ()
    keypoints: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``INDIVIDUALS;AXES;KEYPOINTS``, each a list of ``old:new`` or ``*``.

        Examples
        --------
        >>> Renames.parse("adult:resident;*;*").individuals
        (('adult', 'resident'),)
        """
        parts = _three_parts(text, "adult:resident,juvenile:intruder;*;*")
        return cls(**dict(zip(cls.model_fields, map(cls._pairs, parts), strict=True)))

    @staticmethod
    def _pairs(part: str) -> tuple[tuple[str, str], ...]:
        if part == ALL:
            return ()
        pairs = []
        for word in words_of(part):
            old, colon, new = word.partition(":")
            if not (colon and old and new) or ":" in new:
                raise ValueError(f"expected old:new, got {word!r}")
            pairs.append((old, new))
        if len({old for old, _ in pairs}) < len(pairs):
            raise ValueError(f"{part!r} renames something twice")
        return tuple(pairs)

    def __str__(self) -> str:
        parts = (self.individuals, self.space, self.keypoints)
        return ";".join(",".join(map(":".join, part)) or ALL for part in parts)


class Settings(Config):
    """Settings of a backbone or a task, by the names of their configuration."""

    pairs: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``owner.key=value,…``.

        Examples
        --------
        >>> Settings.parse("backbone.kernel_size=4,order.negatives=simple").by_owner()
        {'backbone': {'kernel_size': '4'}, 'order': {'negatives': 'simple'}}
        """
        pairs = []
        for word in words_of(text) if text else ():
            place, equals, value = word.partition("=")
            owner, dot, key = place.partition(".")
            if not (equals and dot and owner and key and value):
                raise ValueError(
                    f"expected owner.key=value such as backbone.dropout=0.1, got {word!r}"
                )
            pairs.append((owner, key, value))
        if len({pair[:2] for pair in pairs}) < len(pairs):
            raise ValueError(f"{text!r} sets something twice")
        return cls(pairs=tuple(pairs))

    def by_owner(self) -> dict[str, dict[str, str]]:
        """Return the settings as text, by what they belong to."""
        grouped: dict[str, dict[str, str]] = {}
        for owner, key, value in self.pairs:
            grouped.setdefault(owner, {})[key] = value
        return grouped

    def __str__(self) -> str:
        return ",".join(f"{owner}.{key}={value}" for owner, key, value in self.pairs)


class TaskData(Config):
    """Which datasets each task is trained on, by number from 0; tasks not named take all."""

    datasets: dict[str, tuple[int, ...]] = Field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``task:[number,…],…``.

        Examples
        --------
        >>> TaskData.parse("multiclass:[0],order:[0,1]").datasets
        {'multiclass': (0,), 'order': (0, 1)}
        """
        item = re.compile(r"\s*(\w+)\s*:\s*\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]\s*(?:,|$)")
        datasets: dict[str, tuple[int, ...]] = {}
        place = 0
        while place < len(text):
            found = item.match(text, place)
            if found is None:
                raise ValueError(
                    f"expected task:[number,…],… such as multiclass:[0],order:[0,1], got "
                    f"{text[place:]!r}"
                )
            if found[1] in datasets:
                raise ValueError(f"{text!r} names {found[1]} twice")
            datasets[found[1]] = tuple(dict.fromkeys(map(int, found[2].split(","))))
            place = found.end()
        return cls(datasets=datasets)

    def __str__(self) -> str:
        return ",".join(
            f"{task}:[{','.join(map(str, numbers))}]" for task, numbers in self.datasets.items()
        )


class Scale(Config):
    """How coordinates are scaled to [0, 1].

    Parameters
    ----------
    size : tuple of float or None
        Size of the video in pixels, one number for each spatial axis; None scales by the range of
        each recording.
    robust : bool
        Whether that is a range that few outliers do not change, the same for all axes.
    """

    size: tuple[float, ...] | None
    robust: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``WxH``, ``WxHxD``, ``minmax`` or ``robust``: each recording's own range.

        Examples
        --------
        >>> Scale.parse("1024x570").size
        (1024.0, 570.0)
        """
        if text.lower() in (MINMAX, ROBUST):
            return cls(size=None, robust=text.lower() == ROBUST)
        try:
            size = tuple(float(part) for part in text.lower().split("x"))
        except ValueError:
            size = ()
        if len(size) not in (2, 3) or not all(0 < side < float("inf") for side in size):
            raise ValueError(
                f"expected WIDTHxHEIGHT[xDEPTH] such as 1024x570, minmax or robust, got {text!r}"
            )
        return cls(size=size)

    def __str__(self) -> str:
        if self.size is None:
            return ROBUST if self.robust else MINMAX
        return "x".join(map(plain_number, self.size))


MOST = 1e9
"""Largest number of an interval."""


class Interval(Config):
    """How often something happens: a number of epochs, steps or minutes."""

    count: float = Field(gt=0)
    unit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a number and its unit: ep, steps or min.

        Examples
        --------
        >>> Interval.parse("500steps").count, str(Interval.parse("10min"))
        (500.0, '10min')
        """
        found = re.fullmatch(r"([0-9]{1,10}(?:\.[0-9]{1,20})?)(ep|steps|min)", text.strip())
        whole = found is not None and (found[2] == "min" or float(found[1]).is_integer())
        if found is None or not whole or not 0 < float(found[1]) <= MOST:
            raise ValueError(f"expected such as 1ep, 500steps or 10min, got {text!r}")
        return cls(count=float(found[1]), unit=found[2])

    def __str__(self) -> str:
        return plain_number(self.count) + self.unit


LARGEST = 2**60
"""Largest amount of memory, in bytes."""


class Size(Config):
    """An amount of memory; `bytes` None is as much as is needed."""

    bytes: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a number and its unit, KB, MB or GB (of 1024), or ``all``; part of a byte is cut.

        Examples
        --------
        >>> Size.parse("1.5GB").bytes, str(Size.parse("512MB")), str(Size.parse("all"))
        (1610612736, '524288KB', 'all')
        """
        if text.strip().lower() == "all":
            return cls(bytes=None)
        found = re.fullmatch(
            r"([0-9]{1,16}(?:\.[0-9]{1,20})?)(K|M|G)i?B", text.strip(), re.IGNORECASE | re.ASCII
        )
        size = 0
        if found is not None:
            size = int(Decimal(found[1]) * 2 ** {"K": 10, "M": 20, "G": 30}[found[2].upper()])
        if not 0 < size <= LARGEST:
            raise ValueError(f"expected such as 512MB, 8GB or all, got {text!r}")
        return cls(bytes=size)

    def __str__(self) -> str:
        if self.bytes is None:
            return "all"
        text = format(Decimal(self.bytes) / 2**10, "f")  # exact: at most 10 digits after the point
        return f"{text.rstrip('0').rstrip('.') if '.' in text else text}KB"


class Hours(Config):
    """A length of time."""

    minutes: int = Field(gt=0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read hours and minutes.

        Examples
        --------
        >>> Hours.parse("23:50").seconds, str(Hours.parse("100:05"))
        (85800, '100:05')
        """
        found = re.fullmatch(r"([0-9]{1,5}):([0-5][0-9])", text.strip())
        if found is None or not (minutes := 60 * int(found[1]) + int(found[2])):
            raise ValueError(f"expected hours and minutes such as 23:50, got {text!r}")
        return cls(minutes=minutes)

    @property
    def seconds(self) -> int:
        """Length in seconds."""
        return 60 * self.minutes

    def __str__(self) -> str:
        return f"{self.minutes // 60}:{self.minutes % 60:02}"
