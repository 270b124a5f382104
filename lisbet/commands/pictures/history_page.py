"""A page of the histories of runs: one file, with pictures that answer to mouse and finger.

The curves are drawn here, as SVG, so that the page shows them without scripts as well. A few lines
of JavaScript add the numbers under the pointer and hide runs. Nothing is fetched from anywhere.
"""

import html
import json
import math
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 36
COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7b3294", "#c51b7d", "#66761f", "#8c564b", "#525252")
PARTS = ("train", "dev")


@dataclass(frozen=True)
class RunHistory:
    """The rows of a run, one for each epoch.

    Parameters
    ----------
    name : str
        The run.
    rows : list of dict
        As in training_history.csv.
    """

    name: str
    rows: list[dict[str, float]]

    def curve(self, column: str) -> list[tuple[float, float]]:
        """Return the epochs, from 1, and values of a column where there are numbers."""
        return [
            (row["epoch"] + 1, row[column])
            for row in self.rows
            if column in row and math.isfinite(row[column])
        ]


def charts(runs: list[RunHistory]) -> dict[str, dict[str, str]]:
    """Return what to draw: by title, the columns of training and of what was held out."""
    names = list(dict.fromkeys(name for run in runs for name in run.rows[0]))
    found: dict[str, dict[str, str]] = {}
    if "train_loss" in names:
        found["loss of all tasks"] = {part: f"{part}_loss" for part in PARTS}
    for name in names:
        task, part, score = name.rpartition("_train_")
        if part:
            title = f"{task}: {score}"
            found[title] = {part: f"{task}_{part}_{score}" for part in PARTS}
    for name in ("gradient_norm", "learning_rate"):
        if name in names:
            found[name.replace("_", " ")] = {"train": name}
    return found


def page(runs: list[RunHistory]) -> str:
    """Return the page."""
    drawn = charts(runs)
    names = ", ".join(run.name for run in runs)
    legend = "".join(
        f'<label style="--colour:{_colour(n)}"><input type="checkbox" checked data-run="{n}">'
        f"<i></i>{html.escape(run.name)}</label>"
        for n, run in enumerate(runs)
    )
    figures = "".join(_figure(title, parts, runs) for title, parts in drawn.items())
    return PAGE.format(
        title=html.escape(f"Training history: {names}"), legend=legend,
        names=html.escape(names), table=_table(runs, drawn), figures=figures, script=SCRIPT,
    )  # fmt: skip


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _table(runs: list[RunHistory], drawn: dict[str, dict[str, str]]) -> str:
    """Format the last epoch of each run: held-out scores if there are any, else training scores."""
    shown = [title for title, parts in drawn.items() if len(parts) == 2]
    head = "".join(f"<th>{html.escape(title)}</th>" for title in shown)
    lines = []
    for number, run in enumerate(runs):
        cells = []
        for title in shown:
            parts = drawn[title]
            curve = run.curve(parts["dev"]) or run.curve(parts["train"])
            which = "" if run.curve(parts["dev"]) else " <small>train</small>"
            cells.append(f"<td>{curve[-1][1]:.4g}{which}</td>" if curve else "<td></td>")
        lines.append(
            f'<tr data-of="{number}"><th style="color:{_colour(number)}">{html.escape(run.name)}'
            f"</th><td>{len(run.rows)}</td>{''.join(cells)}</tr>"
        )
    return f"<table><tr><th>run</th><th>epochs</th>{head}</tr>{''.join(lines)}</table>"


def _figure(title: str, parts: dict[str, str], runs: list[RunHistory]) -> str:
    """Draw one chart: a curve for each run and part."""
    curves = [
        (number, part, curve)
        for number, run in enumerate(runs)
        for part, column in parts.items()
        if (curve := run.curve(column))
    ]
    if not curves:
        return ""
    points = [point for _, _, curve in curves for point in curve]
    x_ticks = _ticks(min(x for x, _ in points), max(x for x, _ in points), whole=True)
    y_ticks = _ticks(min(y for _, y in points), max(y for _, y in points))
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    low, high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = 0.5 if last == first else (x - first) / (last - first)
        up = (y - low) / (high - low)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    marks = []
    for y in y_ticks:
        _, at = place(first, y)
        marks.append(
            f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{y:.6g}</text>'
        )
    for x in x_ticks:
        if first <= x <= last:
            at, _ = place(x, low)
            marks.append(
                f'<text x="{at}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>'
            )
    for number, part, curve in curves:
        placed = [place(*point) for point in curve]
        line = "M" + "L".join(f"{x} {y}" for x, y in placed)
        shape = "".join(f'<circle cx="{x}" cy="{y}" r="2.2"/>' for x, y in placed[:: _every(curve)])
        marks.append(
            f'<g class="{part}" data-of="{number}" style="--colour:{_colour(number)}">'
            f'<path d="{line}"/>{shape}</g>'
        )
    data = [
        {"run": number, "name": runs[number].name, "part": part,
         "points": [[*place(x, y), x, float(f"{y:.5g}")] for x, y in curve]}
        for number, part, curve in curves
    ]  # fmt: skip
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}" '
        f'data-points="{html.escape(json.dumps(data))}">{"".join(marks)}'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">epoch</text>'
        f'<path class="here" d=""/></svg><output></output></figure>'
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
