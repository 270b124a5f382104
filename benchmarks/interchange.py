"""Interchange with the published tool, PyPI lisbet 0.4.3: each reads what the other one made.

    python benchmarks/interchange.py [--published published_venv] [--tiny] [--cases REGEX]
    python benchmarks/interchange.py [--published published_venv] --fixtures FOLDER

Makes a virtual environment with the published tool, unless it is there (see published.py). Both
tools train tiny models on small simulated recordings; then both tools apply each model, and the
results are compared. The published tool is started once and given one command line after the other,
because its start takes most of the time of a command. `--tiny` takes one model of each tool,
`--cases` those whose names (such as published-lstm-multiclass-3) match. `--fixtures` makes no
table, but writes models of the published tool and what it computed with them into a folder, for
tests/test_interchange.py.
"""

import argparse
import contextlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from interchange_tools import SCALE, RefusedError, Run, own_tool, published_tool, write_recordings
from published import PUBLISHED, environment

OWN, OTHER = "betman", "published"
WINDOW = 12
EMBEDDINGS, ANNOTATIONS = "features_lisbet_embedding.csv", "machineAnnotation_lisbet.csv"
SIZES = {
    "transformer": {"embedding_dim": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16},
    "lstm": {"embedding_dim": 8, "num_layers": 2, "hidden_dim": 12},
    "tcn": {"embedding_dim": 8, "num_layers": 2, "hidden_dim": 12, "kernel_size": 3,
            "dilation_base": 2},
}  # fmt: skip
THRESHOLD = 0.552
"""Of a second table of annotations by several behaviours at a time."""
FIXTURES = (("transformer", "multiclass", 3), ("lstm", "multilabel", 0), ("tcn", "multiclass", 0))


@dataclass(frozen=True)
class Case:
    """A model to train: its maker, backbone, head and offset, and more options."""

    maker: str
    backbone: str
    head: str
    offset: int
    window: int = WINDOW
    preset: str | None = None

    @property
    def name(self) -> str:
        """Name of the model."""
        kind = self.preset or self.backbone
        return f"{self.maker}-{kind}-{self.head}-{self.offset}"

    def words(self, kind: str = "") -> list[str]:
        """Return its configuration and weights, or those of its embedder."""
        return [f"models/{self.name}{kind}/model_config.yml",
                f"models/{self.name}{kind}/weights/weights_last.pt"]  # fmt: skip


def main() -> None:
    """Train, apply and compare; print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--published", type=Path, default=Path("published_venv"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--cases", default="", metavar="REGEX")
    parser.add_argument("--fixtures", type=Path)
    asked = parser.parse_args()
    python = environment(asked.published.resolve()).with_name("python")
    fixtures = asked.fixtures and asked.fixtures.resolve()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        write_recordings(Path("data"), (60, 47), missing=0)
        write_recordings(Path("gaps"), (60, 47), missing=0.1)
        write_recordings(Path("floats"), (60, 47), missing=0, kind="float64")
        with published_tool(python) as other:
            if fixtures:
                make_fixtures(other, fixtures)
                return
            tools = {OWN: own_tool, OTHER: other}
            print(f"{PUBLISHED}, torch {torch.__version__}\n\n| made by | read by | command | "
                  "backbone | head | offset | result |\n|---|---|---|---|---|---|---|")  # fmt: skip
            made = []
            for case in cases(tiny=asked.tiny):
                if re.search(asked.cases, case.name) and train(case, tools):
                    made.append(case)
                    compare(case, tools)
            for maker in (OTHER, OWN):
                for case in [case for case in made if case.maker == maker][:1]:
                    compare_what_follows(case, tools)


def cases(*, tiny: bool) -> list[Case]:
    """Return the models to train."""
    if tiny:
        return [Case(maker, "transformer", "multiclass", 3) for maker in (OTHER, OWN)]
    heads = ("multiclass", "multilabel")
    rows = [Case(maker, backbone, head, offset) for maker in (OTHER, OWN) for backbone in SIZES
            for head in heads for offset in (0, 3)]  # fmt: skip
    return [*rows, Case(OWN, "transformer", "kinematics", 29, 60, preset="social")]


# What is compared ---------------------------------------------------------------------------------


def train(case: Case, tools: dict[str, Run]) -> bool:
    """Train a model and export its embedder; print a row only where that is refused."""
    # The published tool trains multilabel on annotations that are stored as floats only.
    tried = ["data", "floats"] if case.maker == OTHER and case.head == "multilabel" else ["data"]
    for data in tried:
        try:
            tools[case.maker]("train_model", *training(case), data)
            tools[case.maker]("export_embedder", *case.words())
            return True
        except RefusedError as error:
            show(case, case.maker, f"train_model {data}", f"refused: {error}")
    return False


def training(case: Case, epochs: int = 1) -> list[str]:
    """Return the options with which a model is trained."""
    words = [f"--run_id={case.name}", f"--epochs={epochs}", "--batch_size=16", *options(case)]
    if case.preset:
        return [f"--preset={case.preset}", *words]
    words += [f"--task_ids={case.head}", f"--backbone_preset={case.backbone}-base"]
    sizes = [f"backbone.{key}={value}" for key, value in SIZES[case.backbone].items()]
    if case.maker == OWN:
        return [*words, f"--set={','.join(sizes)}"]
    # The published tool takes --set several times, this one takes a list.
    return [*words, *(word for size in sizes for word in ("--set", size))]


def options(case: Case, window: bool = True) -> list[str]:
    """Return the options that both tools take for these recordings."""
    words = ["--data_format=movement", f"--data_scale={SCALE[0]}x{SCALE[1]}"]
    if window:
        words += [f"--window_size={case.window}", f"--window_offset={case.offset}"]
    return words


def applied(case: Case, tool: str) -> list[str]:
    """Return the options with which a tool applies a model.

    The published tool takes 200 frames where nothing else is said, whatever the model was trained
    on; this package reads the window from model_config.yml.
    """
    return options(case, window=tool == OTHER)


def compare(case: Case, tools: dict[str, Run]) -> None:
    """Apply a model with both tools; print a row for each command."""
    reader = OTHER if case.maker == OWN else OWN
    supervised = case.preset is None
    checks: list[tuple[str, Callable[[], str]]] = [
        ("model_info", lambda: model_info(case, tools[reader])),
        ("export_embedder", lambda: export(case, tools[reader])),
        ("compute_embeddings", lambda: embeddings(case, tools, "data")),
        ("compute_embeddings, 10 % of the points missing", lambda: embeddings(case, tools, "gaps")),
    ]
    if supervised:
        checks += [("annotate_behavior", lambda: annotations(case, tools)),
                   ("evaluate_model", lambda: evaluation(case, tools))]  # fmt: skip
    for command, check in checks:
        try:
            show(case, reader, command, check())
        except RefusedError as error:
            show(case, reader, command, f"refused: {error}")


def show(case: Case, reader: str, command: str, result: str) -> None:
    """Print a row."""
    print(f"| {case.maker} | {reader} | {command} | {case.backbone} | {case.preset or case.head} | "
          f"{case.offset} | {result} |", flush=True)  # fmt: skip


def model_info(case: Case, run: Run) -> str:
    """Let the reader describe a model."""
    said = run("model_info", case.words()[0])
    return "read" if case.name in said else "DIFFERENT: another name"


def export(case: Case, run: Run) -> str:
    """Let the reader export the embedder too; compare its tensors and configuration."""
    run("export_embedder", "--output_path=exported", *case.words())
    config, weights = case.words("-embedder")
    one, other = (torch.load(path, weights_only=True) for path in (weights, f"exported/{weights}"))
    if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
        return "DIFFERENT: other tensors"
    shared = [read_yaml(path) for path in (config, f"exported/{config}")]
    keys = shared[0].keys() & shared[1].keys()
    different = [key for key in sorted(keys) if shared[0][key] != shared[1][key]]
    return f"DIFFERENT: {', '.join(different)}" if different else "equal"


def embeddings(case: Case, tools: dict[str, Run], data: str) -> str:
    """Compare the embeddings that both tools compute with the embedder of the maker."""
    for tool, run in tools.items():
        run("compute_embeddings", *applied(case, tool), f"--output_path=out-{data}-{tool}",
            f"--data_filter={','.join(ids(data))}", data, *case.words("-embedder"))  # fmt: skip
    pairs = tables("embeddings", EMBEDDINGS, data)
    clear(data)
    return f"{max(float(np.abs(a - b).max()) for a, b in pairs):.1e}"


def annotations(case: Case, tools: dict[str, Run]) -> str:
    """Compare the behaviours that both tools see with the model of the maker."""
    for tool, run in tools.items():
        mode = [f"--mode={case.head}"] if tool == OTHER else []
        run("annotate_behavior", *applied(case, tool), *mode, f"--output_path=out-data-{tool}",
            "data", *case.words())  # fmt: skip
    pairs = tables("annotations", ANNOTATIONS, "data")
    clear("data")
    wrong = sum(int((a != b).any(axis=1).sum()) for a, b in pairs)
    count = sum(len(a) for a, _ in pairs)
    return f"equal in {count} frames" if not wrong else f"DIFFERENT in {wrong} of {count} frames"


def evaluation(case: Case, tools: dict[str, Run]) -> str:
    """Compare the F1 scores that both tools report for the model of the maker."""
    scores = {}
    for tool, run in tools.items():
        mode = [f"--mode={case.head}"] if tool == OTHER else []
        run("evaluate_model", *applied(case, tool), *mode, f"--output_path=out-data-{tool}", "data",
            *case.words())  # fmt: skip
        report = read_yaml(f"out-data-{tool}/evaluations/{case.name}/evaluation_report.yml")
        if tool == OTHER:
            scores[tool] = report["per_class"]["f1"]
        else:
            scores[tool] = [row["f1"] or 0 for row in report["classes"].values()]
    clear("data")
    if len(scores[OWN]) != len(scores[OTHER]):
        return f"DIFFERENT: {len(scores[OWN])} and {len(scores[OTHER])} classes"
    return f"F1: {max(abs(a - b) for a, b in zip(*scores.values(), strict=True)):.1e}"


def compare_what_follows(case: Case, tools: dict[str, Run]) -> None:
    """Let each tool use the embeddings that the other one has computed."""
    maker, reader = case.maker, OTHER if case.maker == OWN else OWN
    tools[maker]("compute_embeddings", *applied(case, maker), "data", *case.words("-embedder"))
    follow = {
        OWN: [["plot_embeddings", "embeddings"],
              ["plot_embeddings", "--labels=data", "--output_path=labelled.png", "embeddings"]],
        OTHER: [["segment_motifs", "--max_n_components=3", "--hmm_seed=1", "--n_jobs=1",
                 "embeddings"]],
    }  # fmt: skip
    for words in follow[reader]:
        try:
            tools[reader](*words)
            result = "read"
        except RefusedError as error:
            result = f"refused: {error}"
        show(case, reader, " ".join(words[: 1 + words[1].startswith("--labels")]), result)
    shutil.rmtree("embeddings")
    shutil.rmtree("annotations", ignore_errors=True)


def ids(data: str) -> list[str]:
    """Return the ids of the recordings in a folder."""
    return sorted(path.name for path in Path(data).iterdir())


def tables(kind: str, name: str, data: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read the tables of both tools, recording by recording."""
    read = [
        [pd.read_csv(Path(f"out-{data}-{tool}", kind, record, name), index_col=0).to_numpy()
         for record in ids(data)]
        for tool in (OWN, OTHER)
    ]  # fmt: skip
    return list(zip(*read, strict=True))


def clear(data: str) -> None:
    """Remove what both tools have computed."""
    for tool in (OWN, OTHER):
        shutil.rmtree(f"out-{data}-{tool}")


def read_yaml(path: str) -> dict:
    """Read a YAML file."""
    return yaml.safe_load(Path(path).read_text("utf-8"))


# Fixtures -----------------------------------------------------------------------------------------


def make_fixtures(run: Run, folder: Path) -> None:
    """Write models of the published tool, and what it computes of one recording, into a folder."""
    record = "r0"
    shutil.copytree(f"data/{record}", folder / "data" / record, dirs_exist_ok=True)
    for backbone, head, offset in FIXTURES:
        case = Case(OTHER, backbone, head, offset)
        # At this rate it learns in seconds to tell behaviours apart, so that all of them come up.
        words = [*training(case, epochs=20), "--learning_rate=0.01"]
        run("train_model", *words, "floats" if head == "multilabel" else "data")
        run("export_embedder", *case.words())
        words = [*applied(case, OTHER), f"--data_filter={record}", "--output_path=kept", "data"]
        run("compute_embeddings", *words, *case.words("-embedder"))
        run("annotate_behavior", f"--mode={case.head}", *words, *case.words())
        run("evaluate_model", f"--mode={case.head}", *words, *case.words())
        if head == "multilabel":
            words[words.index("--output_path=kept")] = "--output_path=kept/above"
            run("annotate_behavior", f"--mode={head}", f"--threshold={THRESHOLD}", *words,
                *case.words())  # fmt: skip
        keep(case, record, folder / f"{backbone}-{head}-{offset}")
        print(f"{case.name} is in {folder}", flush=True)


def keep(case: Case, record: str, target: Path) -> None:
    """Copy a model and what was computed with it."""
    config, weights = case.words()
    embedder, embedder_weights = case.words("-embedder")
    files = {
        config: "model_config.yml",
        weights: "weights/weights_last.pt",
        embedder: "embedder/model_config.yml",
        f"kept/embeddings/{record}/{EMBEDDINGS}": EMBEDDINGS,
        f"kept/annotations/{record}/{ANNOTATIONS}": ANNOTATIONS,
        f"kept/evaluations/{case.name}/evaluation_report.yml": "evaluation_report.yml",
    }
    if case.backbone == "transformer":  # one is enough, and these files are small together
        files[embedder_weights] = "embedder/weights/weights_last.pt"
    if case.head == "multilabel":
        files[f"kept/above/annotations/{record}/{ANNOTATIONS}"] = f"above_{THRESHOLD}.csv"
    for source, name in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / name)
    shutil.rmtree("kept")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
