"""betman segment_motifs: hidden Markov models of embeddings, for a range of numbers of states."""

import hashlib
import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from hmmlearn.hmm import GaussianHMM
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from lisbet.commands.applying.result_files import EMBEDDING_FILES, motif_table
from lisbet.commands.motifs import hmm, runs
from lisbet.commands.motifs.runs import MotifRun
from lisbet.commands.motifs.saved import model_file, read_model, write_model
from lisbet.commands.motifs.tables import Embeddings, find_tables, motif_names, read_embeddings
from lisbet.core.console import track
from lisbet.core.errors import DataError, counted
from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.write_log import WriteLog, hash_of
from lisbet.core.yaml_files import write_yaml
from lisbet.distributed.cores import cores
from lisbet.options import SegmentOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segmentation:
    """What is written for a number of states.

    Parameters
    ----------
    n_states : int
        The number of states.
    fit : Fit, optional
        The fitted model; None for a pretrained one.
    score : Score
        Of the recordings that it was fitted to, or of all for a pretrained one.
    states : list of ndarray
        (frames,) of each recording: the number of the state, int32.
    """

    n_states: int
    fit: hmm.Fit | None
    score: hmm.Score
    states: list[np.ndarray]

    def metrics(self, run: MotifRun) -> JsonDict:
        """Return what the file of scores holds: those of the published tool, and more."""
        used = set().union(*(np.unique(states).tolist() for states in self.states))
        found: JsonDict = {
            "aic": self.score.aic,
            "bic": self.score.bic,
            "ll": self.score.ll,
            "frames": self.score.frames,
            "empty_states": self.n_states - len(used),
        }
        if self.fit is not None:
            found |= {
                "iterations": len(self.fit.history),
                "converged": bool(self.fit.converged),
            }
        return found | {"run": run.id}


def segment_motifs(options: SegmentOptions) -> None:
    """Fit models, and write the state of every frame of every recording."""
    folder = options.output_path / "annotations"
    require_writable(folder)
    ids = find_tables(options.data_path, EMBEDDING_FILES, options.filters, "compute_embeddings")
    pretrained = pretrained_files(options)
    runs.require_ours(folder, options.numbers, ids)
    data = read_embeddings(options.data_path, ids)
    run = run_of(data, options)
    runs.require_this_run(folder, run, options.numbers, ids, overwrite=options.overwrite)
    fitted = not pretrained
    again = options.overwrite and fitted and options.hmm_seed is None
    done = {
        n_states: scores
        for n_states in options.numbers
        if not again
        and (scores := runs.finished(folder, run, n_states, ids, fitted=fitted)) is not None
    }
    missing = [n_states for n_states in options.numbers if n_states not in done]
    if pretrained:
        models = {
            n_states: read_model(pretrained[n_states], n_states, data.width) for n_states in missing
        }
        _require_same_embeddings(options, data)
        compute = partial(_use, models, data)
    else:
        values, lengths = fitted_part(data, options)
        _require_enough(values, options)
        compute = partial(_fit, values, lengths, data, options)
    run.write(folder)
    for found in _in_parallel(compute, missing, options.n_jobs):
        done[found.n_states] = _write(folder, found, data.ids, run)
    _report(folder, done, options, reused=len(options.numbers) - len(missing))
    print(f"motifs of {counted(len(ids), 'recording')} written to {folder}")


def pretrained_files(options: SegmentOptions) -> dict[int, Path]:
    """Return the file of each model of --pretrained_path; none without that option.

    Raises
    ------
    DataError
        If one is missing, naming those that are there.
    """
    place = options.pretrained_path
    if place is None:
        return {}
    paths = {n_states: place / model_file(n_states) for n_states in options.numbers}
    missing = [n_states for n_states, path in paths.items() if not path.is_file()]
    if missing:
        there = [n for n in runs.numbers_there(place) if (place / model_file(n)).is_file()]
        what = ", ".join(map(str, there)) or "none"
        raise DataError(
            f"--pretrained_path={place} holds no {model_file(missing[0])}; there are models of "
            f"{what} states, see --min_n_components and --max_n_components"
        )
    return paths


def run_of(data: Embeddings, options: SegmentOptions) -> MotifRun:
    """Describe from what motifs are computed."""
    names = ("num_iter", "fit_frac", "hmm_seed")
    chosen: JsonDict = {name: getattr(options, name) for name in names}
    if options.pretrained_path is not None:
        files = sorted(options.pretrained_path.glob("model_hmm*.joblib"))
        digest = hashlib.sha256("".join(f"{f.name} {hash_of(f)}\n" for f in files).encode())
        chosen = {"pretrained_path": f"models {digest.hexdigest()[:12]}"}
    model = None
    if data.model is not None:
        model = {"model_id": data.model.model_id, "weights_sha256": data.model.weights_sha256}
    return MotifRun(
        embeddings_sha256=data.digest(),
        options=chosen,
        model=model,
        recordings=len(data.ids),
        frames=len(data.all),
        embedding_dim=data.width,
    )


def _require_same_embeddings(options: SegmentOptions, data: Embeddings) -> None:
    """Refuse models of the embeddings of another model, as far as that is known."""
    assert options.pretrained_path is not None
    before = MotifRun.read(options.pretrained_path)
    if before is None or before.model is None or data.model is None:
        return
    if before.model.get("weights_sha256") != data.model.weights_sha256:
        raise DataError(
            f"the models in {options.pretrained_path} were fitted to embeddings of model "
            f"{before.model.get('model_id')} (weights "
            f"{str(before.model.get('weights_sha256'))[:12]}), but those in {options.data_path} "
            f"are of {data.model}; states have no meaning in embeddings of another model"
        )


def fitted_part(data: Embeddings, options: SegmentOptions) -> tuple[np.ndarray, list[int]]:
    """Return the frames that models are fitted to, and how many each recording has.

    The published tool draws with replacement, so that a recording may count twice and
    --fit_frac=1 leaves some out. Here a recording that was drawn is not drawn again; where
    the published tool draws none twice, it draws the same.
    """
    if options.fit_frac is None:
        return data.all, list(data.lengths)
    count = math.ceil(options.fit_frac * len(data.ids))
    rng = np.random.default_rng(options.hmm_seed)
    chosen = list(dict.fromkeys(rng.choice(len(data.ids), count).tolist()))
    while len(chosen) < count:
        chosen = list(dict.fromkeys([*chosen, int(rng.choice(len(data.ids)))]))
    each = data.values
    values = np.concatenate([each[number] for number in chosen])
    print(f"models are fitted to {len(chosen)} of {counted(len(data.ids), 'recording')}: "
          f"{len(values)} of {len(data.all)} frames")  # fmt: skip
    return values, [data.lengths[number] for number in chosen]


def _require_enough(values: np.ndarray, options: SegmentOptions) -> None:
    if len(values) <= options.max_n_components:
        raise DataError(
            f"{counted(len(values), 'frame')} cannot be divided into "
            f"{options.max_n_components} states; use fewer (--max_n_components), or more frames"
        )
    different: set[bytes] = set()
    for row in values:  # ends at the first frames, unless nearly all frames are equal
        different.add(row.tobytes())
        if len(different) >= options.max_n_components:
            return
    raise DataError(
        f"the {len(values)} frames have {counted(len(different), 'different embedding')}, which "
        f"cannot be divided into {options.max_n_components} states; use fewer "
        "(--max_n_components), or check why the embeddings do not change"
    )


def _fit(
    values: np.ndarray,
    lengths: Sequence[int],
    data: Embeddings,
    options: SegmentOptions,
    n_states: int,
    stop: threading.Event,
) -> Segmentation:
    """Fit a model and apply it."""
    fit = hmm.fit(
        values, lengths, n_states, n_iter=options.num_iter, seed=options.hmm_seed, stop=stop
    )
    return Segmentation(n_states, fit, fit.score, _states(fit.model, data, stop))


def _use(
    models: dict[int, GaussianHMM], data: Embeddings, n_states: int, stop: threading.Event
) -> Segmentation:
    """Apply a pretrained model."""
    model = models[n_states]
    score = hmm.score(hmm.fast(model), data.all, data.lengths)
    return Segmentation(n_states, None, score, _states(model, data, stop))


def _states(model: GaussianHMM, data: Embeddings, stop: threading.Event) -> list[np.ndarray]:
    """Return the state of each frame of each recording."""
    found = []
    for values in data.values:
        if stop.is_set():
            raise hmm.Stopped
        found.append(hmm.decode(model, values).astype(np.int32))
    return found


def _in_parallel(
    compute: Callable[[int, threading.Event], Segmentation], numbers: Sequence[int], n_jobs: int
) -> Iterator[Segmentation]:
    """Compute several numbers of states at the same time, those that take longest first.

    Threads share the embeddings; hmmlearn and scikit-learn release the interpreter lock.

    Yields
    ------
    Segmentation
        In the order in which they are finished.
    """
    count = n_jobs if n_jobs > 0 else max(1, cores() + 1 + n_jobs)
    stop = threading.Event()
    with (
        threadpool_limits(1),
        warnings.catch_warnings(action="ignore", category=ConvergenceWarning),  # see _warn
        ThreadPoolExecutor(min(count, max(1, len(numbers))), "fit") as pool,
    ):
        jobs = [pool.submit(compute, number, stop) for number in sorted(numbers, reverse=True)]
        try:
            for job in track(as_completed(jobs), "models", len(jobs)):
                yield job.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _write(folder: Path, found: Segmentation, record_ids: Sequence[str], run: MotifRun) -> JsonDict:
    """Write the files of a number of states; that of scores, which says it is finished, last."""
    notes, n_states = WriteLog(folder), found.n_states
    write = partial(write_file, root=folder, overwrite=True, notes=notes)
    if found.fit is not None:
        with write(folder / model_file(n_states)) as temporary:
            write_model(temporary, found.fit.model)
        with write(folder / runs.history_file(n_states)) as temporary:
            pd.DataFrame({"History": found.fit.history}).to_csv(temporary)
    for record_id, states in zip(record_ids, found.states, strict=True):
        with write(folder / record_id / motif_table(n_states)) as temporary:
            write_states(temporary, states, n_states)
    metrics = found.metrics(run)
    with write(folder / runs.metrics_file(n_states)) as temporary:
        write_yaml(temporary, metrics)
    log.info("%d states: log-likelihood %.1f", n_states, found.score.ll)
    return metrics


def write_states(path: Path, states: np.ndarray, n_states: int) -> None:
    """Write a table of motifs: as pandas writes it, in a tenth of the time."""
    rows = [",".join("1" if k == state else "0" for k in range(n_states)) + "\n"
            for state in range(n_states)]  # fmt: skip
    parts = [f",{','.join(motif_names(n_states))}\n"]
    parts += [f"{frame},{rows[state]}" for frame, state in enumerate(states.tolist())]
    path.write_text("".join(parts), "utf-8")


def _report(
    folder: Path, done: dict[int, JsonDict], options: SegmentOptions, *, reused: int
) -> None:
    """Print and write the scores of all numbers of states, and warn of what is wrong with them."""
    names = ("ll", "aic", "bic", "frames", "iterations", "converged", "empty_states")
    rows = [
        {"n_components": n_states, **{name: done[n_states].get(name) for name in names}}
        for n_states in sorted(done)
    ]
    table = pd.DataFrame(rows).dropna(axis=1, how="all")
    with write_file(folder / runs.SCORES, root=folder, overwrite=True) as temporary:
        table.to_csv(temporary, index=False)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}"))
    if reused:
        print(f"{reused} of {len(done)} were finished before, from the same embeddings and options")
    unconverged = [str(n) for n, scores in sorted(done.items()) if scores.get("converged") is False]
    if unconverged:
        log.warning(
            "the models of %s states have not converged after --num_iter=%d iterations: the last "
            "one still raised the log-likelihood by more than %g; see history_hmm<states>.csv, and "
            "raise --num_iter", ", ".join(unconverged), options.num_iter, hmm.TOLERANCE,
        )  # fmt: skip
    empty = [str(n) for n, scores in sorted(done.items()) if scores.get("empty_states")]
    if empty:
        log.warning(
            "of the models of %s states, some states are in no frame: there are too few different "
            "frames for so many", ", ".join(empty),
        )  # fmt: skip
