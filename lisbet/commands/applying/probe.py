"""``betman probe``: what a linear classifier reads off the embedding of a model."""

import logging

import numpy as np
import pandas as pd
import torch
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lisbet.api.inference import load_bank, prepared_as
from lisbet.core import drawing
from lisbet.core.errors import DataError, LisbetError, counted
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.results import require_result_files
from lisbet.core.yaml_files import write_yaml
from lisbet.data.inference import Recordings
from lisbet.data.kinematics import body_axis
from lisbet.distributed.failure_watch import distributed_session
from lisbet.models import model_dir
from lisbet.models.locate import located
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.options import ProbeOptions
from lisbet.probing.compare import (
    MEAN,
    Examples,
    Table,
    compare,
    means,
    present,
    recording_accuracy,
    splits,
    spread,
)
from lisbet.probing.features import (
    AVERAGED,
    CONTROLS,
    SMOOTHED,
    averaged,
    controls_of,
    embeddings_of,
    strides,
)
from lisbet.tasks import TASKS
from lisbet.training.datasets.run_split import RunSplit, listed

log = logging.getLogger(__name__)

REPORT, SCORES, PICTURE = "probe_report.yml", "probe_scores.csv", "probe_scores"
EMBEDDING, UNTRAINED, BOTH = "embedding", "untrained network", "embedding and kinematics"
MOST_ACROSS = 3
"""Behaviours next to each other in the picture."""
MOST_RECORDINGS = 20
"""Recordings among which the probe for recording identity distinguishes."""
TELLS_APART = 1.5
"""An embedding that finds the recording so many times as often as kinematics do is warned of."""


def probe(options: ProbeOptions) -> None:
    """Write probes/<model_id>/ and print the scores."""
    options = located(options)
    config = model_dir.read_config(options.model_path)
    axis = body_axis(config.input_features, options.front, options.back)
    options = prepared_as(options, config)
    folder = options.output_path / "probes" / config.model_id
    require_writable(folder)
    drawn = folder / f"{PICTURE}.{options.format}"
    paths = [folder / REPORT, folder / SCORES, drawn]
    require_result_files(paths, root=folder, overwrite=options.overwrite)
    config, model = model_dir.load_model(options.model_path, options.weights_path)
    with distributed_session(sharded=False) as accelerator:
        bank = load_bank(options, config)
        ids = _labelled(bank, options)
        networks = {EMBEDDING: model, UNTRAINED: _untrained(config, options.seed)}
        networks = {name: net.to(accelerator.device).eval() for name, net in networks.items()}
        examples = examples_of(bank, config, networks, axis, options, accelerator.device)
    seeds = range(options.seed, options.seed + options.seeds)
    count = min(options.folds, len(ids))
    scores = compare(examples, splits(ids, count, seeds))
    if scores.empty:
        raise DataError(
            f"{options.data_path}: no behaviour can be scored: of each, some frames with and "
            f"without it are needed inside and outside of every one of the {count} folds; "
            f"annotated are {', '.join(bank.behaviors)}"
        )
    identity = _identity(examples)
    report = {
        "model": config.model_id,
        "recordings": ids,
        "folds": count,
        "seeds": list(seeds),
        "frames": int(sum(map(len, examples.labels.values()))),
        "present": {
            name: float(share)
            for name, share in zip(bank.behaviors, examples.labels_of(ids).mean(0), strict=True)
        },
        "average_precision": _nested(means(scores), spread(scores)),
        "f1": _nested(means(scores, "f1"), spread(scores, "f1")),
        "recording_accuracy": identity,
        "in_training": _in_training(options, ids),
    }
    with write_file(folder / SCORES, overwrite=True) as temporary:
        scores.to_csv(temporary, index=False)
    drawing.save(picture(scores, config.model_id), drawn, overwrite=True)
    with write_file(folder / REPORT, overwrite=True) as temporary:
        write_yaml(temporary, report)
    print(table(scores))
    print("\n".join(_notes(report, scores, config)))
    print(f"probe written to {folder}")


def _labelled(bank: Recordings, options: ProbeOptions) -> list[str]:
    """Return the recordings with annotations, of which at least two are needed."""
    ids = [record.id for record in bank.records if record.labels is not None]
    if len(ids) < 2:
        raise DataError(
            f"{options.data_path}: {counted(len(ids), 'recording')} with annotations in the format "
            f"{options.annot_format}; a probe is scored on other recordings than it is fitted to, "
            "so at least 2 are needed"
        )
    return ids


def _untrained(config: ModelConfig, seed: int) -> MultiTaskModel:
    """Return the same network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultiTaskModel(config)


@torch.inference_mode()
def examples_of(
    bank: Recordings,
    config: ModelConfig,
    networks: dict[str, MultiTaskModel],
    axis: tuple[int, int] | None,
    options: ProbeOptions,
    device: torch.device,
) -> Examples:
    """Compute all features of frames that are evenly spread over the annotated recordings."""
    used, every = strides(bank.frames, options.max_frames)
    features: dict[str, dict[str, np.ndarray]] = {}
    labels = {}
    for number, recording in bank.each():
        record_id, annotated = bank.ids[number], bank.records[number].labels
        if annotated is None:
            continue
        frames = np.arange(0, recording.frames, used)
        labels[record_id] = annotated.active[frames]
        found = controls_of(recording.tracks[recording.recording(0)], axis, frames)
        for name, network in networks.items():
            values = embeddings_of(
                network, recording, config.window, every=every, fps_scaling=options.fps_scaling,
                batch_size=options.batch_size, device=device,
            )  # fmt: skip
            found[name] = values[frames // every]
            found[f"{name}{AVERAGED}"] = averaged(values, every)[frames // every]
        found[BOTH] = np.concatenate([found[f"{EMBEDDING}{AVERAGED}"], found[SMOOTHED]], axis=1)
        for name, values in found.items():
            features.setdefault(name, {})[record_id] = values
    return Examples(features, labels, bank.behaviors)


def _identity(examples: Examples) -> dict[str, float]:
    """Return how often each of the features tell which recording a frame is from."""
    found = {}
    for name in (SMOOTHED, EMBEDDING):
        own = dict(list(examples.features[name].items())[:MOST_RECORDINGS])
        found[name] = recording_accuracy(own)
    return found | {"chance": 1 / min(MOST_RECORDINGS, len(examples.labels))}


def _in_training(options: ProbeOptions, ids: list[str]) -> list[str] | None:
    """Return which recordings the model was trained on; None if that is not known."""
    try:
        split = RunSplit.read(options.model_path)
    except LisbetError as error:
        log.warning("%s", error)
        return None
    return None if split is None else split.in_training(tuple(ids), options.data_path)


def _nested(mean: Table, deviation: Table) -> JsonDict:
    """Return means and standard deviations by features and behaviour."""
    return {
        name: {
            column: {"mean": value, "std": deviation[name][column]} for column, value in own.items()
        }
        for name, own in mean.items()
    }


def table(scores: pd.DataFrame) -> str:
    """Return the average precision of all features, with its spread, as text."""
    mean, deviation = means(scores), spread(scores)
    rows = {
        name: {c: f"{value:.3f} ± {deviation[name][c]:.3f}" for c, value in own.items()}
        for name, own in mean.items()
    }
    rows["(share of the frames)"] = {name: f"{own:.3f}" for name, own in present(scores).items()}
    text = pd.DataFrame.from_dict(rows, orient="index").fillna("-").to_string()
    return f"average precision, mean ± standard deviation over folds and seeds\n{text}"


def _notes(report: JsonDict, scores: pd.DataFrame, config: ModelConfig) -> list[str]:
    """Say what the scores mean, and what they cannot mean."""
    mean = {name: own[MEAN] for name, own in means(scores).items()}
    ours = max(mean[EMBEDDING], mean[f"{EMBEDDING}{AVERAGED}"])
    best = max((name for name in CONTROLS if name in mean), key=lambda name: mean[name])
    verdict = "better than" if ours > mean[best] else "not better than"
    lines = [
        f"The embedding is {verdict} the best features made by hand ({best}): "
        f"{ours:.3f} and {mean[best]:.3f}, ratio {ours / mean[best]:.2f}."
    ]
    identity = report["recording_accuracy"]
    lines.append(
        f"Which recording a frame is from is found in {identity[EMBEDDING]:.0%} of the frames from "
        f"the embedding, in {identity[SMOOTHED]:.0%} from kinematics (chance: "
        f"{identity['chance']:.0%})."
    )
    if identity[EMBEDDING] > TELLS_APART * max(identity[SMOOTHED], identity["chance"]):
        lines.append(
            "warning: the embedding tells recordings apart better than kinematics do, so it may "
            "describe cameras, arenas or animals more than behaviour; train with "
            "--data_augmentation (--preset=social has some)"
        )
    supervised = [name for name in config.out_heads if name in TASKS and TASKS[name].supervised]
    known = report["in_training"]
    if known and supervised:
        lines.append(
            f"warning: the model was trained on the annotations of {len(known)} of these "
            f"recordings ({listed(known)}), so the scores of the embedding are too good"
        )
    elif known:
        lines.append(
            f"note: the model was trained on the tracks, not the annotations, of {len(known)} of "
            f"these {len(report['recordings'])} recordings"
        )
    return lines


@drawing.styled
def picture(scores: pd.DataFrame, model_id: str) -> Figure:
    """Draw the average precision of all features: a group of bars for each behaviour."""
    mean, deviation, share = means(scores), spread(scores), present(scores)
    names = list(mean)
    behaviors = [name for name in share if name != MEAN or len(share) > 2]
    across = min(MOST_ACROSS, len(behaviors))
    lines = -(-len(behaviors) // across)
    tall = 0.7 + lines * (0.6 + 0.17 * len(mean))
    figure = Figure(figsize=(drawing.WIDTH_IN, tall), layout="constrained")
    places = figure.subplots(lines, across, sharey=True, squeeze=False)
    colours = [drawing.NEUTRAL if name in CONTROLS else drawing.ACCENT for name in names]
    for own, behavior in zip(places.flat, behaviors, strict=False):
        values, errors = (
            [of[name].get(behavior, np.nan) for name in names] for of in (mean, deviation)
        )
        own.barh(range(len(names)), values, xerr=errors, color=colours, error_kw={"lw": 0.8})
        own.axvline(share[behavior], color="black", lw=0.8, ls=":")
        own.set(title=drawing.short(behavior), xlim=(0, 1), xlabel="average precision")
        own.set_yticks(range(len(names)), names)
        own.spines[["top", "right"]].set_visible(False)
    places[0, 0].invert_yaxis()
    for own in places.flat[len(behaviors) :]:
        own.set_axis_off()
    key: list[Artist] = [
        Patch(color=drawing.ACCENT, label="features of a network"),
        Patch(color=drawing.NEUTRAL, label="features made by hand"),
        Line2D([], [], color="black", lw=0.8, ls=":", label="chance: share of the frames"),
    ]
    drawing.legend_below(figure, key)
    figure.suptitle(
        f"{model_id}: linear probes on recordings that they were not fitted to\n"
        "(mean and standard deviation over folds and seeds)"
    )
    return figure
