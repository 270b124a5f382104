"""What pictures are made of: points by group, confusion matrices, and how they are written."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lisbet.core.errors import ConfigError
from lisbet.core.storage.files import write_file

DPI = 110
PICTURES = (".png", ".pdf", ".svg")
NEUTRAL, ACCENT = "#999999", "#0072B2"
"""Grey and blue, which colour-blind readers tell apart (Okabe and Ito,
https://jfly.uni-koeln.de/color)."""


def scatter(axes: Axes, plane: np.ndarray, names: np.ndarray) -> None:
    """Draw points (n, 2), each in the colour of its group's name (n,)."""
    groups = np.unique(names)
    for number, name in enumerate(groups):
        own = plane[names == name]
        axes.scatter(
            own[:, 0], own[:, 1], s=5, alpha=0.6, linewidths=0, label=name, color=f"C{number % 10}"
        )
    if len(groups) <= 20:
        axes.legend(markerscale=3, fontsize=8)
    axes.set(xticks=[], yticks=[])


def confusion_figure(counts: np.ndarray, rows: list[str], columns: list[str], title: str) -> Figure:
    """Draw a confusion matrix: shares of each row in colour, frames as numbers.

    Parameters
    ----------
    counts : ndarray
        (rows, columns): frames by annotated and predicted class.
    rows, columns : list of str
        Their names.
    title : str
        Above the picture.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(
        figsize=(3 + 0.9 * counts.shape[1], 2.2 + 0.6 * counts.shape[0]), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{shares[row, column]:.0%}\n{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(counts.shape[1]), columns, rotation=30, ha="right")
    axes.set_yticks(range(counts.shape[0]), rows)
    axes.set(xlabel="predicted", ylabel="annotated", title=title)
    return figure


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


def save(figure: Figure, path: Path, *, root: Path | None = None, overwrite: bool = False) -> None:
    """Write a picture, in the format of its ending; see `files.write_file` for the rest."""
    require_picture(path)
    with write_file(path, root=root, overwrite=overwrite) as temporary:
        figure.savefig(temporary, dpi=DPI, format=path.suffix[1:].lower())
