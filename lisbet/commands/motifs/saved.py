"""Save hidden Markov models as the published tool does, and read them without running code.

The file is a pickle that joblib writes: of a GaussianHMM of hmmlearn, with arrays of numbers
between the parts of the pickle. Loading a pickle calls whatever functions it names. So it is read
here by an unpickler that knows a few names only, and makes objects that hold what was stored and do
nothing else; the model is then built from these numbers, which are checked.
"""

import math
import pickle
from collections import deque
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import joblib
import numpy as np
from hmmlearn.hmm import GaussianHMM

from lisbet.commands.motifs.hmm import new_model
from lisbet.core.errors import DataError, ModelError

LARGEST = 2**30
"""Bytes of a file of a model."""
NUMBERS = ("f4", "f8", "i4", "i8")
"""Kinds of arrays that are read."""


def model_file(n_states: int) -> str:
    """Return the name of the file of a model."""
    return f"model_hmm{n_states}.joblib"


def write_model(path: Path, model: GaussianHMM) -> None:
    """Write a model as the published tool reads it."""
    joblib.dump(model, path)


def read_model(path: Path, n_states: int, width: int) -> GaussianHMM:
    """Read a model that this program or the published tool has written.

    Parameters
    ----------
    path : Path
        The file.
    n_states : int
        Number of hidden states that it must have.
    width : int
        Number of values of a frame of the embeddings that it is used on.

    Raises
    ------
    ModelError
        If it holds anything but such a model.
    DataError
        If it is a model of embeddings of another width.
    """
    state = _read_state(path)
    shapes: dict[str, tuple[int, ...]] = {
        "startprob_": (n_states,),
        "transmat_": (n_states, n_states),
        "means_": (n_states, -1),
        "_covars_": (n_states, -1, -1),
    }
    arrays = {}
    for name, shape in shapes.items():
        array = state.get(name)
        if not isinstance(array, np.ndarray) or not _has_shape(array, shape):
            raise _refusal(path, f"{name} is no array of {n_states} states")
        if not np.isfinite(array).all():
            raise _refusal(path, f"{name} has values that are not finite")
        arrays[name] = array.astype(float)
    if state.get("covariance_type") != "full":
        raise _refusal(path, f"covariances of type {state.get('covariance_type')!r}, not 'full'")
    for name in ("startprob_", "transmat_"):
        if (arrays[name] < 0).any() or not np.allclose(arrays[name].sum(-1), 1):
            raise _refusal(path, f"{name} does not hold probabilities")
    found = arrays["means_"].shape[1]
    if arrays["_covars_"].shape[1:] != (found, found):
        raise _refusal(path, "covariances and means are of different widths")
    if found != width:
        raise DataError(
            f"{path} is a model of embeddings with {found} columns, but these have {width}; give "
            "the embeddings of the model that it was fitted with"
        )
    return _model_of(path, arrays, state.get("random_state"))


def _model_of(path: Path, arrays: dict[str, np.ndarray], seed: object) -> GaussianHMM:
    """Build a model from its numbers."""
    model = new_model(len(arrays["startprob_"]), 1, seed if isinstance(seed, int) else None,
                      GaussianHMM)  # fmt: skip
    try:
        model.startprob_, model.transmat_ = arrays["startprob_"], arrays["transmat_"]
        model.means_ = arrays["means_"]
        model.n_features = arrays["means_"].shape[1]
        model.covars_ = arrays["_covars_"]
    except ValueError as error:
        raise _refusal(path, str(error)) from error
    return model


def _has_shape(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    return array.ndim == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
    )


def _refusal(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} cannot be read as a hidden Markov model ({reason}): it is damaged, or holds "
        "something else, such as code, which is never run. Expected model_hmm<states>.joblib as "
        "betman segment_motifs or the published tool writes it"
    )


def _read_state(path: Path) -> dict[str, Any]:
    """Return the attributes of the pickled model."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.stat().st_size > LARGEST:
        raise _refusal(path, f"it has more than {LARGEST} bytes")
    with path.open("rb") as stream:
        if stream.read(1) != b"\x80":
            raise _refusal(path, "it is no uncompressed pickle of joblib")
        stream.seek(0)
        try:
            found = _Reader(stream).load()
        except Exception as error:  # a damaged file makes the unpickler raise almost anything
            raise _refusal(path, str(error).partition("\n")[0][:200]) from error
    if not isinstance(found, _Model):
        raise _refusal(path, "it holds no GaussianHMM")
    return {
        name: value.values if isinstance(value, _Array) else value
        for name, value in vars(found).get("state", {}).items()
    }


class _Stored:
    """Holds what a pickle says of an object."""

    def __init__(self, *args: object) -> None:
        self.args = args

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict | tuple) else {}


class _Model(_Stored):
    """Stands for a GaussianHMM."""


class _Other(_Stored):
    """Stands for what is not needed: the history of the fit, the random state, names of classes."""


class _Dtype(_Stored):
    """Stands for a numpy.dtype, made as dtype('f8', False, True) with (3, '<', …) as its state."""

    @property
    def numpy(self) -> np.dtype:
        kind = self.args[0]
        if kind not in NUMBERS:
            raise pickle.UnpicklingError(f"an array of type {kind!r}")
        order: Any = self.state[1] if isinstance(self.state, tuple) else "="
        return np.dtype(str(kind)).newbyteorder(order)


class _Array:
    """Stands for joblib's NumpyArrayWrapper, behind which the numbers are in the file."""

    stream: ClassVar[BinaryIO]

    def __setstate__(self, state: dict[str, Any]) -> None:
        dtype = state["dtype"].numpy
        shape = tuple(int(size) for size in state["shape"])
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size > LARGEST:
            raise pickle.UnpicklingError(f"an array of shape {shape}")
        if state.get("numpy_array_alignment_bytes") is not None:
            self.stream.read(self.stream.read(1)[0])  # joblib fills up to an aligned address
        data = self.stream.read(size)
        if len(data) < size:
            raise pickle.UnpicklingError("the file ends within an array")
        by_column = state.get("order") == "F"
        values: np.ndarray = np.frombuffer(data, dtype)
        self.values = values.reshape(shape, order="F" if by_column else "C")


class _Reader(pickle.Unpickler):
    """Makes nothing but the objects above; arrays are read when the pickle describes them."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(_Exact(stream))
        self.array = type("_ArrayOfFile", (_Array,), {"stream": stream})

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("hmmlearn.hmm", "GaussianHMM"): _Model,
            ("joblib.numpy_pickle", "NumpyArrayWrapper"): self.array,
            ("numpy", "dtype"): _Dtype,
            ("numpy", "ndarray"): _Other,
            ("hmmlearn.base", "ConvergenceMonitor"): _Other,
            ("collections", "deque"): deque,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[module, name]


class _Exact:
    """A file without ``peek``: the unpickler then reads no byte of the arrays behind its frames."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.readline = stream.read, stream.readline
