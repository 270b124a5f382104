"""Figures of behaviour over time: timelines, and the numbers of bouts."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from lisbet.commands.pictures.bouts import bouts_of
from lisbet.core import drawing

LANE_IN, GAP = 0.17, 0.9
"""Height of a lane, and the space between sources, in lanes."""
BAR = 0.8
SHORTEST_PT = 0.3
"""Bouts are drawn at least so wide, or short ones could not be seen in long recordings."""
MANY_BOUTS = 20_000
"""With more, a file of curves would be too large to open; they are drawn as pixels in it."""


@dataclass(frozen=True)
class Source:
    """What one folder says about some recordings.

    Parameters
    ----------
    name : str
        Of the model or annotator.
    behaviors : tuple of str
        Behaviours or motifs.
    active : dict of ndarray
        By recording: (frames, behaviours), bool.
    """

    name: str
    behaviors: tuple[str, ...]
    active: dict[str, np.ndarray]

    def only(self, behaviors: tuple[str, ...]) -> "Source":
        """Return the source with those of some behaviours that it has, in their order."""
        kept = [self.behaviors.index(name) for name in behaviors if name in self.behaviors]
        return replace(
            self,
            behaviors=tuple(self.behaviors[number] for number in kept),
            active={record_id: values[:, kept] for record_id, values in self.active.items()},
        )


@dataclass(frozen=True)
class Span:
    """Which part of a recording is drawn.

    Parameters
    ----------
    first, end : int
        Its first frame, and the one after its last.
    fps : float or None
        Frames per second; None counts frames.
    """

    first: int
    end: int
    fps: float | None

    @property
    def limits(self) -> tuple[float, float]:
        """Return where it begins and ends, in seconds, or in frames."""
        rate = self.fps or 1.0
        return self.first / rate, self.end / rate

    def __str__(self) -> str:
        start, end = self.limits
        if self.fps is None:
            return f"frames {self.first:,} to {self.end - 1:,}"
        return f"{start:g} to {end:.6g} s, {self.fps:g} frames per second"


def colours(sources: list[Source]) -> dict[str, str]:
    """Choose the colour of each behaviour, the same in all sources."""
    names = [name for source in sources for name in source.behaviors]
    return drawing.colours_of(names, drawing.NO_BEHAVIORS)


@drawing.styled
def timeline_figure(
    record_id: str, sources: list[Source], span: Span, *, compact: bool = False
) -> Figure:
    """Draw when each behaviour happens in one recording.

    Parameters
    ----------
    record_id : str
        The recording.
    sources : list of Source
        Drawn below each other.
    span : Span
        The part to draw.
    compact : bool
        Whether a source has one lane, instead of one for each behaviour.
    """
    shown = colours(sources)
    lanes = [[source.name] if compact else list(source.behaviors) for source in sources]
    tops, height = _places(lanes, 0.3 if compact else GAP)
    key = _legend(sources, shown) if compact else []
    tall = LANE_IN * height * (1.6 if compact else 1) + (0.2 if key else 0)
    figure = Figure(figsize=(drawing.WIDTH_IN, 0.9 + tall), layout="constrained")
    axes = figure.subplots()
    for source, top, rows in zip(sources, tops, lanes, strict=True):
        for number, behavior in enumerate(source.behaviors):
            place = top if compact else top + number
            active = source.active[record_id][span.first : span.end, number]
            _draw_bouts(axes, bouts_of(active), place, shown[behavior], span)
        if not compact:
            _head(axes, source.name, top)
            for number in range(len(rows)):
                axes.axhline(top + number, color="#E4E4E4", lw=0.5, zorder=0)
    _label_lanes(axes, tops, lanes)
    axes.set(xlim=span.limits, ylim=(height - 0.4, -0.6 - (0 if compact else GAP * 0.5)))
    unit = "frame" if span.fps is None else "time after the first frame of the recording (s)"
    axes.set(xlabel=unit)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"{record_id}: {span}")
    if key:
        drawing.legend_below(figure, key)
    return figure


def _places(lanes: list[list[str]], gap: float) -> tuple[list[float], float]:
    """Return the y of the first lane of each source, and the height of all, in lanes."""
    tops, at = [], 0.0
    for rows in lanes:
        tops.append(at)
        at += len(rows) + gap
    return tops, at - gap


def _label_lanes(axes: Axes, tops: list[float], lanes: list[list[str]]) -> None:
    places = [top + n for top, rows in zip(tops, lanes, strict=True) for n in range(len(rows))]
    axes.set_yticks(places, [drawing.short(name) for rows in lanes for name in rows])
    axes.tick_params(axis="y", length=0)


def _head(axes: Axes, name: str, top: float) -> None:
    """Write the name of a source above its lanes."""
    axes.text(
        0.005, top - 0.5, name, transform=axes.get_yaxis_transform(), ha="left", va="bottom",
        fontweight="bold", fontsize=drawing.SMALLEST_PT,
    )  # fmt: skip


def _legend(sources: list[Source], shown: dict[str, str]) -> list[Patch]:
    names = dict.fromkeys(name for source in sources for name in source.behaviors)
    return [Patch(color=shown[name], label=drawing.short(name)) for name in names]


def _draw_bouts(axes: Axes, bouts: np.ndarray, place: float, colour: str, span: Span) -> None:
    """Draw a bar for each bout (start, end), in frames from the first that is drawn."""
    rate = span.fps or 1.0
    bars = [((span.first + start) / rate, (end - start) / rate) for start, end in bouts.tolist()]
    axes.broken_barh(
        bars, (place - BAR / 2, BAR), facecolor=colour, edgecolor=colour, linewidth=SHORTEST_PT,
        rasterized=len(bars) > MANY_BOUTS,
    )  # fmt: skip


@drawing.styled
def numbers_figure(tables: list[tuple[Source, pd.DataFrame]], unit: str, title: str) -> Figure:
    """Draw the share of time, the number of bouts and their durations.

    Parameters
    ----------
    tables : list of tuple
        Each source with its rows of `bouts.behavior_rows`, over all recordings.
    unit : str
        Of the durations: ``s`` or ``frames``.
    title : str
        Above the picture.
    """
    sources = [source for source, _ in tables]
    shown = colours(sources)
    lanes = [list(source.behaviors) for source in sources]
    tops, height = _places(lanes, GAP + 0.2)
    figure = Figure(figsize=(drawing.WIDTH_IN, 1.1 + LANE_IN * height), layout="constrained")
    share, count, duration = figure.subplots(1, 3, sharey=True)
    for (source, table), top in zip(tables, tops, strict=True):
        places = top + np.arange(len(table))
        colour = [shown[name] for name in source.behaviors]
        bars = {"height": BAR, "color": colour}
        share.barh(places, 100 * table["share_of_time"], **bars)
        count.barh(places, table["bouts"], **bars)
        low, middle, high = (table[f"{name}_{unit}"] for name in ("min", "median", "max"))
        duration.hlines(places, low, high, color=colour, lw=1.5)
        duration.scatter(middle, places, c=colour, s=14, zorder=3)
        duration.scatter(
            table[f"mean_{unit}"], places, c="black", marker="|", s=22, lw=0.8, zorder=4
        )
        _head(share, source.name, top)
    _label_lanes(share, tops, lanes)
    share.set(xlabel="share of time (%)", xlim=(0, None), ylim=(height - 0.4, -1.4))
    count.set(xlabel="number of bouts", xlim=(0, None))
    word = "seconds" if unit == "s" else "frames"
    duration.set_xscale("log")
    duration.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    duration.set(xlabel=f"bout duration ({word}):\nmedian ●, mean |, range —")
    for axes in (share, count, duration):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.suptitle(title)
    return figure
