"""Hidden Markov models with Gaussian emissions: fit, score, and find the state of each frame.

The algorithm and its settings are those of hmmlearn's GaussianHMM with full covariances, as the
published tool uses it; only the sums over frames are computed in another way.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hmmlearn.base import ConvergenceMonitor
from hmmlearn.hmm import GaussianHMM

from lisbet.core.errors import DataError

TOLERANCE = 1e-3
"""A model has converged when an iteration raises the log-likelihood by less."""
CHUNK = 65_536
"""Frames whose copies in double precision are in memory at the same time."""


class Stopped(Exception):  # noqa: N818
    """Fitting was interrupted."""


class _Monitor(ConvergenceMonitor):  # type: ignore[misc]
    """Notes the log-likelihood of each iteration; a decrease is reported once, by `Fit`."""

    def __init__(self, tol: float, n_iter: int, stop: threading.Event) -> None:
        super().__init__(tol, n_iter, verbose=False)
        self.stop = stop

    def report(self, log_prob: float) -> None:
        if self.stop.is_set():
            raise Stopped
        self.history.append(log_prob)
        self.iter += 1


class Hmm(GaussianHMM):  # type: ignore[misc]
    """A GaussianHMM whose sums over frames are matrix products.

    hmmlearn computes the second moments of all states with an einsum of three operands, which takes
    most of the time of an iteration. Both methods work on `CHUNK` frames at a time, so that
    their copies in double precision stay small.
    """

    params: str

    def _compute_log_likelihood(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        parts = [
            super(Hmm, self)._compute_log_likelihood(X[start : start + CHUNK])
            for start in range(0, len(X), CHUNK)
        ]
        return np.concatenate(parts)

    def _accumulate_sufficient_statistics(
        self,
        stats: dict[str, Any],
        X: np.ndarray,  # noqa: N803
        lattice: np.ndarray,
        posteriors: np.ndarray,
        fwdlattice: np.ndarray,
        bwdlattice: np.ndarray,
    ) -> None:
        params, self.params = self.params, self.params.replace("c", "")
        try:
            super()._accumulate_sufficient_statistics(
                stats, X, lattice, posteriors, fwdlattice, bwdlattice
            )
        finally:
            self.params = params
        for start in range(0, len(X), CHUNK):
            values = X[start : start + CHUNK].astype(float)
            weights = posteriors[start : start + CHUNK]
            for state in range(self.n_components):
                weighted = values * weights[:, state, None]
                stats["obs*obs.T"][state] += weighted.T @ values


def new_model(n_states: int, n_iter: int, seed: int | None, kind: type = Hmm) -> Any:
    """Return a model that is not fitted yet."""
    return kind(
        n_components=n_states,
        covariance_type="full",
        n_iter=n_iter,
        tol=TOLERANCE,
        random_state=seed,
    )


@dataclass(frozen=True)
class Score:
    """How well a model describes recordings.

    Parameters
    ----------
    ll : float
        Log-likelihood of the recordings.
    aic, bic : float
        Akaike's and the Bayesian information criterion, of which less is better: -2 ll + 2 k, and
        -2 ll + k ln(frames), with k free parameters.
    frames : int
        Frames of the recordings.
    """

    ll: float
    aic: float
    bic: float
    frames: int


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Parameters
    ----------
    model : GaussianHMM
        The model.
    history : tuple of float
        Log-likelihood of the recordings before each iteration changed the model.
    score : Score
        Of the recordings that it was fitted to.
    """

    model: GaussianHMM
    history: tuple[float, ...]
    score: Score

    @property
    def gain(self) -> float:
        """By how much the last iteration has raised the log-likelihood."""
        return self.history[-1] - self.history[-2] if len(self.history) > 1 else np.inf

    @property
    def converged(self) -> bool:
        """Whether the last iteration has raised the log-likelihood by less than `TOLERANCE`."""
        return self.gain < TOLERANCE


def fit(
    values: np.ndarray,
    lengths: Sequence[int],
    n_states: int,
    *,
    n_iter: int,
    seed: int | None,
    stop: threading.Event,
) -> Fit:
    """Fit a model to recordings.

    Parameters
    ----------
    values : ndarray
        (frames, embedding) of all recordings, float32.
    lengths : sequence of int
        Frames of each.
    n_states : int
        Number of hidden states.
    n_iter : int
        Largest number of iterations.
    seed : int, optional
        Of the k-means clusters that the means begin with.
    stop : Event
        Ends fitting at the next iteration, with `Stopped`.

    Raises
    ------
    DataError
        If there is no such model of these recordings.
    """
    model = new_model(n_states, n_iter, seed)
    model.monitor_ = _Monitor(TOLERANCE, n_iter, stop)
    try:
        model.fit(values, lengths)
        found = score(model, values, lengths)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise _no_model(n_states, error) from error
    if not np.isfinite([*model.monitor_.history, found.ll]).all():
        raise _no_model(n_states, "the log-likelihood is not finite")
    return Fit(plain(model), tuple(map(float, model.monitor_.history)), found)


def _no_model(n_states: int, reason: object) -> DataError:
    return DataError(
        f"no hidden Markov model with {n_states} states fits these embeddings ({reason}); use "
        "fewer states (--max_n_components) or more frames. Models with other numbers of states "
        "that were finished are kept"
    )


def score(model: GaussianHMM, values: np.ndarray, lengths: Sequence[int]) -> Score:
    """Return how well a model describes recordings; see `fit` for the arguments."""
    found = float(model.score(values, lengths))
    k = sum(model._get_n_fit_scalars_per_param().values())
    return Score(found, 2 * k - 2 * found, k * float(np.log(len(values))) - 2 * found, len(values))


def plain(model: Hmm) -> GaussianHMM:
    """Return the same model as one of hmmlearn's own, which other programs can load."""
    made = new_model(model.n_components, model.n_iter, model.random_state, GaussianHMM)
    monitor = ConvergenceMonitor(model.tol, model.n_iter, verbose=False)
    monitor.history, monitor.iter = deque(model.monitor_.history), model.monitor_.iter
    vars(made).update(vars(model) | {"monitor_": monitor})
    return made


def fast(model: GaussianHMM) -> Hmm:
    """Return the same model as one that computes in parts."""
    made = Hmm()
    made.__dict__.update(vars(model))
    return made


def decode(model: GaussianHMM, values: np.ndarray) -> np.ndarray:
    """Return the most likely sequence of states of a recording (Viterbi): (frames,)."""
    states: np.ndarray = fast(model).predict(values)
    return states
