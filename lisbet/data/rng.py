"""Random numbers that are a pure function of what they are for.

A counter-based generator (Philox 4x64) is keyed by the seed and the name of the stream, and its
counter starts at (step, epoch). Row i of a table depends on nothing but these and i: not on the
number of processes, nor on what was drawn before. The raw bits are turned into numbers here
because NumPy promises the same bits in every release, but not the same distributions.
"""

import hashlib

import numpy as np


def uniforms(
    seed: int, stream: str, *, epoch: int, step: int, rows: int, columns: int
) -> np.ndarray:
    """Draw a table of uniform numbers.

    Parameters
    ----------
    seed : int
        Seed of the run.
    stream : str
        What the numbers are for, such as ``"train/cons"``. Other names, other numbers.
    epoch, step : int
        When they are for.
    rows, columns : int
        One row for each sample of the global batch, one column for each choice of a sample.

    Returns
    -------
    ndarray
        (rows, columns), float64 in [0, 1), multiples of 2**-53.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=16).digest()
    generator = np.random.Philox(
        key=np.frombuffer(digest, "<u8"), counter=np.array([0, step, epoch, 0], "u8")
    )
    bits = generator.random_raw(rows * columns)
    return ((bits >> 11) * 2.0**-53).reshape(rows, columns)


def pick(uniform: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Turn uniform numbers into integers, uniform in 0 … count-1.

    Parameters
    ----------
    uniform : ndarray
        In [0, 1).
    count : ndarray or int
        Number of choices, at least 1; broadcast with `uniform`.
    """
    return np.minimum((uniform * count).astype(np.int64), np.asarray(count) - 1)
