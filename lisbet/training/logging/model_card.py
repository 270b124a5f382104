"""models/<run_id>/README.md: what the model is, written when its training ends.

Nothing in it tells when or how often a run was started, so that one that was interrupted has the
very same card.
"""

import html
import logging
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lisbet.core.errors import OutputError, counted
from lisbet.core.json_types import JsonDict
from lisbet.core.redact import redacted
from lisbet.core.registry import packages
from lisbet.core.storage.files import require_file_target, write_text
from lisbet.models import model_dir
from lisbet.models.multitask import ModelConfig
from lisbet.options import TrainOptions, affecting
from lisbet.training.logging.pictures import FOLDER

if TYPE_CHECKING:
    from lisbet.training.trainer import Trainer

log = logging.getLogger(__name__)

CARD = "README.md"
TAGS = ("lisbet", "pose-estimation", "behavior", "animal-behaviour")
"""Words by which models are found on the Hugging Face hub."""
MANY = 20
"""Recordings that are named one by one; of more, only the number is given."""


def write_card(trainer: "Trainer") -> None:
    """Write the model card of a run that has come to its end; a README of somebody else stays."""
    text = card(trainer)
    path = trainer.folder / CARD
    try:
        require_file_target(path, root=trainer.folder, overwrite=True)
    except OutputError as error:
        log.warning("no model card was written: %s", error)
        return
    if not path.exists() or path.read_text("utf-8") != text:
        write_text(path, text, root=trainer.folder, overwrite=True)


def card(trainer: "Trainer") -> str:
    """Return the model card, in Markdown."""
    config = trainer.inputs.config
    parts = [
        with_header("", header(config)),
        f"# {config.model_id}",
        _summary(config, list(trainer.inputs.tasks)),
        "## Scores",
        _scores(trainer.history),
        _pictures(trainer.folder),
        "## How to use it",
        _usage(trainer),
        "## Data",
        _data(trainer),
        "## How it was trained",
        _options(trainer.options),
        _versions(trainer.config),
        "## How to cite",
        CITATION,
    ]
    return redacted("\n\n".join(part for part in parts if part) + "\n")


def card_of(config: ModelConfig, repository: str, weights: str) -> str:
    """Return the card of a model of which no more is known than its configuration, in Markdown.

    Parameters
    ----------
    config : ModelConfig
        Its configuration.
    repository : str
        ORGANISATION/NAME on the hub.
    weights : str
        File of its weights, relative to its folder.
    """
    folder = f"models/{repository.rpartition('/')[2]}"
    command = "compute_embeddings"
    if model_dir.EMBEDDING not in config.out_heads:
        command = "annotate_behavior" if config.behaviors else "export_embedder"
    recordings = [] if command == "export_embedder" else ["datasets/mice"]
    lines = [
        ["fetch_model", repository],
        [command, *recordings, f"{folder}/{model_dir.MODEL_CONFIG}", f"{folder}/{weights}"],
    ]
    parts = [
        with_header("", header(config)),
        f"# {config.model_id}",
        _summary(config, list(config.out_heads)),
        "## How to use it",
        _console(lines),
        "## How to cite",
        CITATION,
    ]
    return redacted("\n\n".join(parts) + "\n")


def header(config: ModelConfig) -> JsonDict:
    """Return what the Hugging Face hub reads at the beginning of a card."""
    return {
        "library_name": "lisbet",
        "pipeline_tag": "feature-extraction",
        "tags": [*TAGS, config.backbone["type"]],
    }


def with_header(text: str, head: JsonDict) -> str:
    """Put a header in front of a text."""
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---{text}"


def _summary(config: ModelConfig, tasks: list[str]) -> str:
    features = config.input_features
    sizes = ", ".join(f"{key} {value}" for key, value in config.backbone.items() if key != "type")

    def joined(names: Iterable[str]) -> str:
        return ", ".join(map(escaped, names))

    rows = [
        ("backbone", f"{config.backbone['type']} ({sizes})"),
        ("tasks", joined(tasks)),
        ("window", f"{config.window_size} frames, offset {config.window_offset}"),
        ("individuals", joined(features.individuals)),
        ("keypoints", joined(features.keypoints)),
        ("axes", joined(features.space)),
        *((f"classes of {task}", joined(names)) for task, names in config.behaviors.items()),
        *(("plug-ins", f"{escaped(name)} {release}") for name, release in packages().items()),
    ]
    return (
        "A [LISBET](https://github.com/BelloneLab/lisbet) model of social behaviour: it turns "
        "windows of pose tracks into an embedding of each frame.\n\n" + _table(("", ""), rows)
    )


def _scores(history: list[dict[str, float]]) -> str:
    last = history[-1]
    rows = [
        (escaped(name), f"{value:.4g}")
        for name, value in last.items()
        if name not in ("epoch", "learning_rate", "learning_rate_max", "gradient_norm")
    ]
    said = f"After {counted(len(history), 'epoch')}; `dev` is what was held out.\n\n"
    best = ""
    if "dev_loss" in last:
        row = min(history, key=lambda row: (row["dev_loss"] != row["dev_loss"], row["dev_loss"]))
        best = f"\n\nThe lowest held-out loss, {row['dev_loss']:.4g}, was that of epoch " \
               f"{int(row['epoch']) + 1}."  # fmt: skip
    return said + _table(("", "last epoch"), rows) + best


def _pictures(folder: Path) -> str:
    there = sorted((folder / FOLDER).glob("*.png"))
    return "\n\n".join(f"![{path.stem.replace('_', ' ')}]({FOLDER}/{path.name})" for path in there)


def _usage(trainer: "Trainer") -> str:
    folder, data = trainer.folder, trainer.options.data_path[0]
    weights = model_dir.WEIGHTS_LAST
    embedder = folder.with_name(f"{folder.name}-embedder")
    output = str(trainer.options.output_path)
    where = [f"--output_path={output}"] if output != "." else []
    model, exported = (
        [f"{place}/{model_dir.MODEL_CONFIG}", f"{place}/{weights}"] for place in (folder, embedder)
    )
    lines = [
        ["export_embedder", *where, *model],
        ["compute_embeddings", str(data), *exported],
    ]
    if trainer.inputs.config.behaviors:
        lines.append(["annotate_behavior", str(data), *model])
    return _console(lines)


def _console(lines: list[list[str]]) -> str:
    """Return commands of betman as a block of Markdown."""
    text = "\n".join(f"$ {shlex.join(['betman', *words])}" for words in lines)
    fence = "`" * max(3, 1 + _longest_ticks(text))
    return f"{fence}console\n{text}\n{fence}"


def _data(trainer: "Trainer") -> str:
    data = trainer.config["data"]
    paths = ", ".join(code(str(path)) for path in trainer.options.data_path)
    lines = [f"Recordings in {paths}; fingerprint `{data['fingerprint'][:16]}`."]
    for sampler in trainer.inputs.samplers:
        ids = data["split"][sampler.part]
        named = (
            f": {', '.join(map(escaped, ids))}" if len(ids) <= MANY else ", named in run_config.yml"
        )
        frames = max(bank.frames for bank in sampler.banks.values())
        lines.append(f"* {sampler.part}: {counted(len(ids), 'recording')}, {frames} frames{named}")
    if "split_frames" in data:
        lines.append("* of each recording the last part is held out; run_config.yml says which")
    return "\n\n".join([lines[0], "\n".join(lines[1:])])


def _options(options: TrainOptions) -> str:
    dumped = options.model_dump(mode="json")
    defaults = TrainOptions(data_path=options.data_path).model_dump(mode="json")
    shown = {*affecting(TrainOptions, "model", "data", "files"), "epochs"} - {"run_id", "data_path"}
    rows = [
        (f"`--{name}`", code(str(value)).replace("|", "\\|"))
        for name, value in dumped.items()
        if name in shown and value != defaults[name]
    ]
    said = "Options that differ from their defaults; `run_config.yml` has all, and repeats the run:"
    repeat = "`betman train_model --config=run_config.yml`."
    if not rows:
        return f"With the defaults of every option. {repeat}"
    return f"{said} {repeat}\n\n" + _table(("option", "value"), rows)


def _versions(config: JsonDict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    processes = config["processes"]
    count = processes["count"]
    how = f"{processes['strategy']}, {count} processes" if count > 1 else processes["strategy"]
    return f"{how}; {versions}."


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])


def escaped(text: str) -> str:
    r"""Return text as Markdown that shows just that, on one line.

    Examples
    --------
    >>> print(escaped("mouse_1 <b>|`x`"))
    mouse_1 &lt;b&gt;\|\`x\`
    """
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"[\\`*|\[\]~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[-+#]", r"\\\g<0>", text)


def code(text: str) -> str:
    """Return text as code in a line of Markdown, whatever backticks it has."""
    text = " ".join(text.split())
    ticks = "`" * (1 + _longest_ticks(text))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


CITATION = """Cite the paper, and whoever recorded the data:

> Chindemi, G., Girard, B., & Bellone, C. (2023). LISBET: a machine learning model for the automatic
> segmentation of social behavior motifs. arXiv:2311.04069"""
