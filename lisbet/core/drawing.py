"""What pictures have in common: colours, size of text, legends, confusion matrices, writing.

Figures are as wide as a page of a journal, with text of 7 points or more at that width. Functions
that build one are decorated with `styled`, as matplotlib reads sizes when texts are made.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lisbet.core.errors import ConfigError, shortened
from lisbet.core.storage.files import write_file

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

DPI = 300
WIDTH_IN = 7.0
"""Two columns of a journal."""
SMALLEST_PT, TEXT_PT = 7, 8
PICTURES = (".png", ".pdf", ".svg")
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#000000", "#CC79A7", "#F0E442")
"""The colours of Okabe and Ito (https://jfly.uni-koeln.de/color), the most different ones first.
For readers with normal vision, without red, green or blue cones, any two of them and `NEUTRAL` are
at least 16 apart (CIE 1976)."""
NEUTRAL, ACCENT = "#C8C8C8", PALETTE[0]
NO_BEHAVIOR = "none"
NO_BEHAVIORS = (NO_BEHAVIOR, "other")
"""Frames without a behaviour, and the class that stands for them: both are drawn in `NEUTRAL`."""
SEVERAL = "several at once"
"""Frames with several behaviours, where each mixture cannot have its own colour."""
SEQUENCE = "viridis"
"""More groups than `PALETTE` has colours take evenly spaced ones of this uniform colour map."""
SEQUENCE_END = 0.95
"""Its last, palest colours are left out."""
MARKERS = "o^sDv"
"""Shapes of the points of groups that follow each other, where there are many."""
MOST_NAMED = 48
"""With more groups, a colour bar takes the place of the legend."""
LONGEST_NAME = 32
MANY_POINTS = 20_000
"""With more, a file of curves would be too large to open; they are drawn as pixels in it."""
OUTCOMES = ("true positive", "false negative", "false positive", "true negative")
"""Columns of the confusion of behaviours that do not exclude each other."""
MOST_CELLS = 12
"""Cells of a matrix in one row that have room for numbers."""
STYLE: Any = {
    "font.size": TEXT_PT,
    "axes.titlesize": TEXT_PT,
    "axes.labelsize": TEXT_PT,
    "figure.titlesize": TEXT_PT,
    "xtick.labelsize": SMALLEST_PT,
    "ytick.labelsize": SMALLEST_PT,
    "legend.fontsize": SMALLEST_PT,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=PALETTE),
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,  # text that can be edited, and that journals take
    "svg.fonttype": "none",
    "svg.hashsalt": "betman",  # the same picture is the same file
}


def styled(draw: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Let a function build its figure in the style of these pictures."""

    @wraps(draw)
    def in_style(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def colours_of(names: Sequence[str], neutral: Sequence[str] = ()) -> dict[str, str]:
    """Choose a colour for each of several groups, in their order.

    Parameters
    ----------
    names : sequence of str
        The groups.
    neutral : sequence of str
        Those of them that are grey, such as `NO_BEHAVIORS`.

    Returns
    -------
    dict of str
        Hexadecimal colours: those of `PALETTE` where it has enough, else of `SEQUENCE`.
    """
    counted = [name for name in dict.fromkeys(names) if name not in neutral]
    chosen: Sequence[str] = PALETTE
    if len(counted) > len(PALETTE):
        places = np.linspace(0, SEQUENCE_END, len(counted))
        chosen = [to_hex(colour) for colour in mpl.colormaps[SEQUENCE](places)]
    return dict(zip(counted, chosen, strict=False)) | dict.fromkeys(neutral, NEUTRAL)


def mixtures(names: Sequence[str], active: np.ndarray) -> np.ndarray:
    """Name the behaviours of each frame, for its colour.

    Parameters
    ----------
    names : sequence of str
        The behaviours.
    active : ndarray
        (frames, behaviours), bool.

    Returns
    -------
    ndarray
        (frames,) of str: ``chase``, ``chase + attack``, or `NO_BEHAVIOR`. If that makes more groups
        than `PALETTE` has colours, all mixtures are `SEVERAL`.

    Examples
    --------
    >>> mixtures(["a", "b"], np.array([[1, 0], [1, 1], [0, 0]], bool)).tolist()
    ['a', 'a + b', 'none']
    """
    kinds, number = np.unique(active, axis=0, return_inverse=True)
    known = np.array(names, dtype=object)
    words = [" + ".join(known[kind]) or NO_BEHAVIOR for kind in kinds]
    if len(kinds) - (NO_BEHAVIOR in words) > len(PALETTE):
        pairs = zip(kinds, words, strict=True)
        words = [SEVERAL if kind.sum() > 1 else word for kind, word in pairs]
    return np.array(words)[number.ravel()]


def short(name: str) -> str:
    """Return a name for a label, without its end if it is very long."""
    return shortened(name, LONGEST_NAME)


@styled
def scatter_figure(
    plane: np.ndarray,
    names: np.ndarray,
    title: str,
    axes_labels: tuple[str, str],
    neutral: Sequence[str] = NO_BEHAVIORS,
) -> Figure:
    """Draw points in the colour of their group, with the legend below.

    Parameters
    ----------
    plane : ndarray
        (points, 2).
    names : ndarray
        (points,): the group of each, str.
    title : str
        Above the picture.
    axes_labels : tuple of str
        Along x and y.
    neutral : sequence of str
        Groups that are grey.
    """
    groups = sorted(set(names.tolist()), key=lambda name: (name in neutral, name))
    colours = colours_of(groups, neutral)
    many = len(groups) > len(PALETTE) + 1
    shapes = {
        name: MARKERS[number % len(MARKERS)] if many else "o" for number, name in enumerate(groups)
    }
    lines = 0 if len(groups) > MOST_NAMED else -(-len(groups) // _columns(groups))
    figure = Figure(figsize=(WIDTH_IN, 5.6 + 0.16 * lines), layout="constrained")
    axes = figure.subplots()
    # Shuffled, or the last group would hide the others; always in the same order.
    order = np.random.default_rng(0).permutation(len(names))
    for shape in dict.fromkeys(shapes.values()):
        own = order[[shapes[name] == shape for name in names[order].tolist()]]
        across, up = plane[own].T
        axes.scatter(
            across, up, s=5, alpha=0.8, linewidths=0, marker=shape,
            c=[colours[name] for name in names[own].tolist()], rasterized=len(names) > MANY_POINTS,
        )  # fmt: skip
    axes.set(xlabel=axes_labels[0], ylabel=axes_labels[1], xticks=[], yticks=[])
    if len(groups) > MOST_NAMED:
        _colour_bar(figure, axes, groups, colours)
    else:
        marks = [
            Line2D([], [], ls="", marker=shapes[name], color=colours[name], ms=4, label=short(name))
            for name in groups
        ]
        legend_below(figure, marks)
    figure.suptitle(title)
    return figure


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend under the axes of a figure, where it hides nothing."""
    names = [str(handle.get_label()) for handle in handles]
    figure.legend(handles=list(handles), loc="outside lower center", ncols=_columns(names))


def _columns(names: Sequence[str]) -> int:
    """Return how many columns of a legend fit into the width of a figure."""
    widest = max(len(short(name)) for name in names)
    letters = WIDTH_IN * 72 / (0.62 * SMALLEST_PT)
    most = max(1, int(letters / (widest + 7)))
    lines = -(-len(names) // most)
    return -(-len(names) // lines)


def _colour_bar(figure: Figure, axes: Axes, groups: list[str], colours: dict[str, str]) -> None:
    """Name the first, middle and last of very many groups next to their colours."""
    listed = ListedColormap([colours[name] for name in groups])
    norm = BoundaryNorm(np.arange(len(groups) + 1), len(groups))
    bar = figure.colorbar(ScalarMappable(norm, listed), ax=axes, location="bottom", aspect=60)
    shown = (0, len(groups) // 2, len(groups) - 1)
    bar.set_ticks([n + 0.5 for n in shown], labels=[short(groups[n]) for n in shown])
    bar.set_label(f"{len(groups)} groups, in the order of their names")


def confusion_figure(counts: np.ndarray, rows: list[str], columns: list[str], title: str) -> Figure:
    """Draw a confusion: frames as numbers, and their shares as numbers and colours.

    Parameters
    ----------
    counts : ndarray
        (rows, columns): frames by annotated and predicted class; or where the columns are
        `OUTCOMES`, frames of each behaviour by what was annotated and predicted.
    rows, columns : list of str
        Their names.
    title : str
        Above the picture.
    """
    if tuple(columns) != OUTCOMES:
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return matrix_figure(
            [share],
            [counts],
            [rows],
            [columns],
            [""],
            title,
            ("predicted class", "annotated class"),
        )
    annotated, absent = counts[:, :2], counts[:, 2:]
    shares = [part / np.maximum(part.sum(axis=1, keepdims=True), 1) for part in (annotated, absent)]
    outcomes = [["true positive", "false negative"], ["false positive", "true negative"]]
    answers = [
        [f"{answer}\n({outcome})" for answer, outcome in zip(("yes", "no"), pair, strict=True)]
        for pair in outcomes
    ]
    return matrix_figure(
        shares, [annotated, absent], [rows, rows], answers,
        ["frames annotated with the behaviour", "frames annotated without it"], title,
        ("predicted", "behaviour"),
    )  # fmt: skip


@styled
def matrix_figure(
    shares: Sequence[np.ndarray],
    counts: Sequence[np.ndarray] | None,
    rows: Sequence[list[str]],
    columns: Sequence[list[str]],
    headings: Sequence[str],
    title: str,
    axes_labels: tuple[str, str],
    *,
    per_line: int = 3,
) -> Figure:
    """Draw matrices of shares next to each other.

    Parameters
    ----------
    shares : sequence of ndarray
        (rows, columns) each, from 0 to 1; NaN where there is none.
    counts : sequence of ndarray or None
        Of the same shapes: whole numbers under the shares.
    rows : sequence of list of str
        Names of the rows of each.
    columns : sequence of list of str
        Names of the columns of each.
    headings : sequence of str
        Above each.
    title : str
        Above all.
    axes_labels : tuple of str
        Along x and y.
    per_line : int
        Most matrices in one line.
    """
    across = min(per_line, len(shares))
    lines = -(-len(shares) // across)
    widest, most = max(map(len, columns)), max(map(len, rows))
    numbers = across * widest <= MOST_CELLS
    width = min(WIDTH_IN, 2.2 + 0.75 * across * widest)
    tall = 0.18 if not numbers else 0.24 if counts is None else 0.4
    figure = Figure(figsize=(width, 0.6 + lines * (0.9 + tall * most)), layout="constrained")
    places = figure.subplots(lines, across, squeeze=False)
    for number, (axes, share) in enumerate(zip(places.flat, shares, strict=False)):
        axes.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        if numbers:
            _write_cells(axes, share, None if counts is None else counts[number])
        _name_cells(axes, rows[number], columns[number])
        axes.set_title(headings[number])
        if number + across >= len(shares):
            axes.set_xlabel(axes_labels[0])
        if number % across and rows[number] == rows[number - 1]:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel(axes_labels[1])
    for axes in places.flat[len(shares) :]:
        axes.set_axis_off()
    if not numbers:
        figure.colorbar(places[0, 0].images[0], ax=places, shrink=0.6, label="share of the row")
    figure.suptitle(title)
    return figure


def _name_cells(axes: Axes, rows: list[str], columns: list[str]) -> None:
    below = [short(name) for name in columns]
    if max(len(line) for name in below for line in name.split("\n")) * len(columns) > 60:
        axes.set_xticks(range(len(below)), below, rotation=40, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(below)), below)
    axes.set_yticks(range(len(rows)), [short(name) for name in rows])
    axes.tick_params(length=2)


def _write_cells(axes: Axes, shares: np.ndarray, counts: np.ndarray | None) -> None:
    for row, column in np.ndindex(shares.shape):
        share = shares[row, column]
        text = "–" if np.isnan(share) else f"{share:.0%}"
        if counts is not None:
            text += f"\n{counts[row, column]:,}"
        colour = "white" if share > 0.6 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=SMALLEST_PT)


def require_picture(path: Path, known: tuple[str, ...] = PICTURES) -> None:
    """Refuse a file name without the ending of a picture format.

    Raises
    ------
    ConfigError
        Naming the kinds.
    """
    if path.suffix.lower() not in known:
        kinds = f"{', '.join(known[:-1])} or {known[-1]}"
        raise ConfigError(f"--output_path={path}: expected a name ending in {kinds}")


@styled
def save(figure: Figure, path: Path, *, root: Path | None = None, overwrite: bool = False) -> None:
    """Write a picture, in the format of its ending; see `files.write_file` for the rest."""
    require_picture(path)
    kind = path.suffix[1:].lower()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with write_file(path, root=root, overwrite=overwrite) as temporary:
        figure.savefig(temporary, dpi=DPI, format=kind, metadata=dates.get(kind))
