"""``betman plot_history``: losses and scores of runs over their epochs."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lisbet.commands.pictures.history_page import EPOCH, Chart, RunHistory, charts, page
from lisbet.core import drawing
from lisbet.core.errors import ConfigError, ModelError
from lisbet.core.storage.files import require_writable, write_text
from lisbet.core.storage.results import require_result_files
from lisbet.core.yaml_files import read_yaml
from lisbet.options import PlotHistoryOptions
from lisbet.training.logging.events import EVENTS, read_events
from lisbet.training.logging.history import HISTORY, read_history

PAGE, SEVERAL = ".html", "training_histories"
RUN_CONFIG = "run_config.yml"
STYLES = {"train": ":", "dev": "-"}
CHANCE_PT = 0.7
SHOWN_AS = {"train": "training", "dev": "held out"}


def plot_history(options: PlotHistoryOptions) -> None:
    """Draw losses and scores per epoch: a picture, and a page."""
    folders = options.run_path
    paths = _history_paths(options)
    if options.output_path is not None:
        drawing.require_picture(paths[0], (*drawing.PICTURES, PAGE))
    _require_targets(paths, overwrite=options.overwrite)
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):  # of several places
        names = [str(folder) for folder in folders]
    runs = [
        RunHistory(name, rows_of(folder), chance_of(folder))
        for name, folder in zip(names, folders, strict=True)
    ]
    for path in paths:
        if path.suffix.lower() == PAGE:
            write_text(path, page(runs), overwrite=options.overwrite)
            print(f"page written to {path}")
        else:
            drawing.save(history_figure(runs), path, overwrite=options.overwrite)
            print(f"picture written to {path}")


def _history_paths(options: PlotHistoryOptions) -> list[Path]:
    """Return the files to write: the one that was asked for, or a picture and a page."""
    folders = options.run_path
    one = len(folders) == 1
    place = folders[0] / "training_history" if one else folders[0].parent / SEVERAL
    picture = options.picture_path(place)
    return [picture] if options.output_path else [picture, place.with_name(place.name + PAGE)]


def _require_targets(paths: list[Path], *, overwrite: bool) -> None:
    """Refuse before anything is drawn what must not be replaced or cannot be written."""
    for path in paths:
        require_result_files([path], root=path.parent, overwrite=overwrite)
        require_writable(path.parent)


def rows_of(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a run's epochs: of its history, or else of its events.

    Raises
    ------
    ModelError
        If there are neither.
    """
    if not (folder / HISTORY).is_file() and (folder / EVENTS).is_file():
        ends = [row for row in read_events(folder / EVENTS) if "epoch/epoch" in row]
        rows = [
            {
                name.removeprefix("epoch/"): math.nan if value is None else float(value)
                for name, value in row.items()
                if name.startswith("epoch/")
            }
            for row in ends
        ]
        if rows:
            return rows
        raise ModelError(f"{folder / EVENTS} holds no finished epoch yet")
    if not (folder / HISTORY).is_file():
        runs = sorted(
            {path.parent.name for name in (HISTORY, EVENTS) for path in folder.glob(f"*/{name}")}
        )
        hint = f"runs in it: {', '.join(runs)}" if runs else "expected a folder models/RUN"
        raise ModelError(f"{folder} is not a run with {HISTORY} or {EVENTS}; {hint}")
    return read_history(folder / HISTORY)


def chance_of(folder: Path) -> dict[str, float]:
    """Return the score of each task that guesses reach, where the run notes it."""
    try:
        found = read_yaml(folder / RUN_CONFIG).get("chance")
    except ConfigError:  # there is none, as next to a history that was copied
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {str(task): float(score) for task, score in pairs if isinstance(score, int | float)}


@drawing.styled
def history_figure(runs: list[RunHistory]) -> Figure:
    """Draw a chart for each number: of one run the tasks, of several runs each in its colour."""
    one = len(runs) == 1
    drawn = [chart for chart in charts(runs, by_task=not one) if chart.title != "gradient norm"]
    tasks = dict.fromkeys(task for chart in drawn for task in chart.columns if task)
    names = list(tasks) if one else [run.name for run in runs]
    colours = drawing.colours_of(names)
    columns = 2 if len(drawn) == 4 else min(3, len(drawn))
    lines = -(-len(drawn) // columns)
    figure = Figure(figsize=(drawing.WIDTH_IN, 0.8 + 1.9 * lines), layout="constrained")
    places = figure.subplots(lines, columns, squeeze=False).ravel()
    parts: set[str] = set()
    for axes, chart in zip(places, drawn, strict=False):
        for run in runs:
            for task in chart.columns:
                colour = colours.get(task if one else run.name, "black")
                parts |= _draw(axes, chart, run, task, colour)
        axes.set(title=chart.title, xlabel=EPOCH)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3, lw=0.5)
        if chart.score:
            axes.set_ylim(min(0, axes.get_ylim()[0]), 1.02)
    for axes in places[len(drawn) :]:
        axes.set_axis_off()
    key = [Line2D([], [], color=colours[name], label=drawing.short(name)) for name in names]
    for part, style in STYLES.items():
        if part in parts:
            key.append(Line2D([], [], color="black", ls=style, label=SHOWN_AS[part]))
    if any(run.chance for run in runs):
        key.append(Line2D([], [], color="black", ls="--", lw=CHANCE_PT, label="chance"))
    drawing.legend_below(figure, key)
    figure.suptitle(f"run {runs[0].name}" if one else f"{len(runs)} runs")
    return figure


def _draw(axes: Axes, chart: Chart, run: RunHistory, task: str, colour: str) -> set[str]:
    """Draw the curves of a task, and its score by chance; return which parts there are."""
    parts: set[str] = set()
    held = len(chart.columns[task]) > 1  # a learning rate is of no part
    for part, column in chart.columns[task].items():
        if points := run.curve(column):
            style = STYLES[part] if held else "-"
            axes.plot(*zip(*points, strict=True), style, color=colour, marker=".")
            parts |= {part} if held else set()
    if chart.score and task in run.chance:
        axes.axhline(run.chance[task], color=colour, ls="--", lw=CHANCE_PT, zorder=0)
    return parts
