"""A page of the histories of runs: one file, with pictures that answer to mouse and finger.

The curves are drawn here, as SVG, so that the page shows them without scripts as well. A few lines
of JavaScript add the numbers under the pointer and hide runs. Nothing is fetched from anywhere.
"""

import html
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from lisbet.core.drawing import PALETTE, SEQUENCE

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 36
COLOURS = PALETTE[:5]
"""Black and the palest ones are left out: the page may be dark."""
MIDDLE = 0.25, 0.85
"""Part of the colour map for more runs."""
PARTS = ("train", "dev")
EPOCH = "epoch (from 0)"
"""As in training_history.csv, and in the names of weights of single epochs."""
SCORES = {"accuracy": "accuracy", "f1": "macro F1", "r2": "R²"}
RATES = {
    "learning_rate_max": "largest learning rate",
    "learning_rate": "learning rate, first step",
}
"""Columns with a learning rate, the better one first: earlier releases have only the second."""


@dataclass(frozen=True)
class RunHistory:
    """The rows of a run, one for each epoch.

    Parameters
    ----------
    name : str
        The run.
    rows : list of dict
        As in training_history.csv.
    chance : dict of float
        Score of each task that guesses reach, where that is known.
    """

    name: str
    rows: list[dict[str, float]]
    chance: dict[str, float] = field(default_factory=dict)

    def curve(self, column: str) -> list[tuple[float, float]]:
        """Return the epochs and values of a column where there are numbers."""
        return [
            (row["epoch"], row[column])
            for row in self.rows
            if column in row and math.isfinite(row[column])
        ]


@dataclass(frozen=True)
class Chart:
    """One chart of the histories.

    Parameters
    ----------
    title : str
        Above it.
    columns : dict of dict
        By task, which is empty for what has none: columns of training and of what was held out.
    score : bool
        Whether it shows scores, of which 1 is the best.
    """

    title: str
    columns: dict[str, dict[str, str]]
    score: bool = False


def charts(runs: list[RunHistory], *, by_task: bool) -> list[Chart]:
    """Return what there is to draw.

    Parameters
    ----------
    runs : list of RunHistory
        The runs.
    by_task : bool
        Whether each task has charts of its own, instead of sharing those for losses and for scores
        of one kind.
    """
    names = list(dict.fromkeys(name for run in runs for row in run.rows for name in row))
    found: dict[str, Chart] = {}
    if by_task and "train_loss" in names:
        parts = {part: f"{part}_loss" for part in PARTS}
        found["loss of all tasks"] = Chart("loss of all tasks", {"": parts})
    for name in names:
        task, part, score = name.rpartition("_train_")
        if part:
            word = SCORES.get(score, score)
            title = f"{task}: {word}" if by_task else word
            columns = {part: f"{task}_{part}_{score}" for part in PARTS}
            known = found.get(title, Chart(title, {}, score != "loss"))
            found[title] = replace(known, columns=known.columns | {task: columns})
    rate = next((name for name in RATES if name in names), None)
    more = {} if rate is None else {rate: RATES[rate]}
    for column, title in (more | {"gradient_norm": "gradient norm"}).items():
        if column in names:
            found[title] = Chart(title, {"": {"train": column}})
    return list(found.values())


def page(runs: list[RunHistory]) -> str:
    """Return the page."""
    drawn = charts(runs, by_task=True)
    colours = _colours(len(runs))
    names = ", ".join(run.name for run in runs)
    legend = "".join(
        f'<label style="--colour:{colours[n]}"><input type="checkbox" checked data-run="{n}">'
        f"<i></i>{html.escape(run.name)}</label>"
        for n, run in enumerate(runs)
    )
    figures = "".join(_figure(chart, runs, colours) for chart in drawn)
    return PAGE.format(
        title=html.escape(f"Training history: {names}"), legend=legend, figures=figures,
        names=html.escape(names), table=_table(runs, drawn, colours), script=SCRIPT,
    )  # fmt: skip


def _colours(count: int) -> list[str]:
    """Choose colours that can be seen on white and on black."""
    if count <= len(COLOURS):
        return list(COLOURS)
    return [to_hex(colour) for colour in colormaps[SEQUENCE](np.linspace(*MIDDLE, count))]


def _table(runs: list[RunHistory], drawn: list[Chart], colours: list[str]) -> str:
    """Format the last epoch of each run: held-out scores if there are any, else training scores."""
    shown = {c.title: parts for c in drawn for parts in c.columns.values() if len(parts) == 2}
    head = "".join(f"<th>{html.escape(title)}</th>" for title in shown)
    lines = []
    for number, run in enumerate(runs):
        cells = []
        for parts in shown.values():
            curve = run.curve(parts["dev"]) or run.curve(parts["train"])
            which = "" if run.curve(parts["dev"]) else " <small>train</small>"
            cells.append(f"<td>{curve[-1][1]:.4g}{which}</td>" if curve else "<td></td>")
        lines.append(
            f'<tr data-of="{number}"><th style="color:{colours[number]}">{html.escape(run.name)}'
            f"</th><td>{len(run.rows)}</td>{''.join(cells)}</tr>"
        )
    return f"<table><tr><th>run</th><th>epochs</th>{head}</tr>{''.join(lines)}</table>"


def _figure(chart: Chart, runs: list[RunHistory], colours: list[str]) -> str:
    """Draw one chart: a curve for each run and part, and where scores would be by chance."""
    title = chart.title
    curves = [
        (number, part, curve)
        for number, run in enumerate(runs)
        for parts in chart.columns.values()
        for part, column in parts.items()
        if (curve := run.curve(column))
    ]
    if not curves:
        return ""
    chance = {
        run.chance[task]: None
        for run in runs
        for task in chart.columns
        if chart.score and task in run.chance
    }
    points = [point for _, _, curve in curves for point in curve]
    plane = Plane.of([*points, *((points[0][0], level) for level in chance)])
    marks = [*_grid(plane), *(_chance(plane, level) for level in chance)]
    for number, part, curve in curves:
        placed = [plane.place(*point) for point in curve]
        line = "M" + "L".join(f"{x} {y}" for x, y in placed)
        shape = "".join(f'<circle cx="{x}" cy="{y}" r="2.2"/>' for x, y in placed[:: _every(curve)])
        marks.append(
            f'<g class="{part}" data-of="{number}" style="--colour:{colours[number]}">'
            f'<path d="{line}"/>{shape}</g>'
        )
    data = [
        {"run": number, "name": runs[number].name, "part": part,
         "points": [[*plane.place(x, y), x, float(f"{y:.5g}")] for x, y in curve]}
        for number, part, curve in curves
    ]  # fmt: skip
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}" '
        f'data-points="{html.escape(json.dumps(data))}">{"".join(marks)}'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{EPOCH}'
        f'</text><path class="here" d=""/></svg><output></output></figure>'
    )


@dataclass(frozen=True)
class Plane:
    """Where values are in a chart.

    Parameters
    ----------
    first, last : float
        The epochs at its sides.
    ticks : list of float
        Round values from its bottom to its top.
    """

    first: float
    last: float
    ticks: list[float]

    @classmethod
    def of(cls, points: list[tuple[float, float]]) -> Self:
        """Return the plane that holds some points."""
        epochs, values = zip(*points, strict=True)
        return cls(min(epochs), max(epochs), _ticks(min(values), max(values)))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a value is drawn."""
        width = self.last - self.first
        across = 0.5 if not width else (x - self.first) / width
        up = (y - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )


def _grid(plane: Plane) -> Iterator[str]:
    """Draw the lines and numbers of both axes."""
    for y in plane.ticks:
        _, at = plane.place(plane.first, y)
        yield (
            f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{y:.6g}</text>'
        )
    for x in _ticks(plane.first, plane.last, whole=True):
        if plane.first <= x <= plane.last:
            at, _ = plane.place(x, plane.ticks[0])
            yield f'<text x="{at}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>'


def _chance(plane: Plane, level: float) -> str:
    _, at = plane.place(plane.first, level)
    return (
        f'<path class="chance" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>'
        f'<text x="{WIDTH - RIGHT}" y="{at - 4}" text-anchor="end">chance</text>'
    )


def _every(curve: list[tuple[float, float]]) -> int:
    """Points between two dots, so that a long curve is still a line."""
    return max(1, len(curve) // 40)


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return round numbers that span a range."""
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= 5)
    step = max(1.0, round(step)) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    last += first == last
    return [float(np.round(step * n, 12)) for n in range(first, last + 1)]


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --back: #fff; --text: #222; --soft: #ddd; --mute: #666; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #16181c; --text: #e6e6e6; --soft: #333840; --mute: #a0a6ae; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 1500px; background: var(--back);
  color: var(--text); font: 15px/1.4 system-ui, sans-serif; }}
h1 {{ font-size: 1.25rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
.legend {{ display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: .4rem 0;
  position: sticky; top: 0; background: var(--back); z-index: 1; }}
.legend label {{ display: flex; align-items: center; gap: .4rem; padding: .25rem 0; }}
.legend i {{ width: 1.2rem; height: .25rem; background: var(--colour); }}
.key {{ color: var(--mute); }}
.table {{ overflow-x: auto; margin-bottom: 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }}
th, td {{ text-align: right; padding: .2rem .7rem; border-bottom: 1px solid var(--soft);
  font-weight: normal; }}
tr th:first-child {{ text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--back); }}
tr:first-child th {{ color: var(--mute); }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr));
  gap: 1.2rem; }}
figure {{ margin: 0; }}
figcaption {{ font-weight: 600; }}
svg {{ width: 100%; height: auto; display: block; touch-action: pan-y; }}
svg text {{ font-size: 12px; fill: var(--mute); }}
.grid {{ stroke: var(--soft); }}
g path {{ fill: none; stroke: var(--colour); stroke-width: 2; stroke-linejoin: round; }}
g circle {{ fill: var(--colour); }}
g.train path {{ stroke-dasharray: 5 3; opacity: .75; stroke-width: 1.5; }}
g.train circle {{ display: none; }}
.chance {{ stroke: var(--mute); stroke-dasharray: 6 3; }}
.here {{ stroke: var(--mute); stroke-dasharray: 2 2; }}
output {{ display: block; min-height: 1.4em; font-size: 13px; color: var(--mute);
  font-variant-numeric: tabular-nums; }}
.off {{ display: none; }}
</style></head><body>
<h1>Training history: {names}</h1>
<div class="legend">{legend}<span class="key">dashed: training &nbsp; solid: held out</span></div>
<div class="table">{table}</div>
<main>{figures}</main>
<script>{script}</script>
</body></html>
"""

SCRIPT = """
"use strict";
const hidden = new Set();
for (const box of document.querySelectorAll("[data-run]")) {
  box.addEventListener("change", () => {
    box.checked ? hidden.delete(box.dataset.run) : hidden.add(box.dataset.run);
    for (const part of document.querySelectorAll("[data-of]"))
      part.classList.toggle("off", hidden.has(part.dataset.of));
  });
}
for (const svg of document.querySelectorAll("svg")) {
  const curves = JSON.parse(svg.dataset.points);
  const said = svg.parentElement.querySelector("output");
  const line = svg.querySelector(".here");
  const show = event => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let best = null;
    const seen = curves.filter(curve => !hidden.has(String(curve.run)));
    for (const curve of seen) for (const point of curve.points)
      if (best === null || Math.abs(point[0] - at) < Math.abs(best[0] - at)) best = point;
    if (best === null) return;
    const many = new Set(curves.map(curve => curve.run)).size > 1;
    const values = seen.flatMap(curve => curve.points.filter(point => point[2] === best[2])
      .map(point => `${many ? curve.name + " " : ""}${curve.part} ${point[3]}`));
    said.textContent = `epoch ${best[2]}: ${values.join(", ")}`;
    line.setAttribute("d", `M${best[0]} 12V250`);
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", event => {
    if (event.pointerType !== "mouse") return;
    said.textContent = ""; line.setAttribute("d", "");
  });
}
"""
