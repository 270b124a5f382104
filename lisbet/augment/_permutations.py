"""Random permutations that are never the identity."""

from math import factorial

import numpy as np

from lisbet.core.config import Features
from lisbet.core.errors import ConfigError

MOST = 18
"""18! is the largest factorial that a uniform number of 53 bits can choose from."""


def check_permutable(name: str, axis: str, features: Features) -> None:
    """Refuse axes that have no permutation but the identity, or too many to draw from."""
    count = len(getattr(features, axis))
    if not 2 <= count <= MOST:
        raise ConfigError(f"{name} needs 2 to {MOST} {axis}; the recordings have {count}")


def permutations(uniform: np.ndarray, count: int) -> np.ndarray:
    """Draw permutations, uniform over all but the identity.

    Parameters
    ----------
    uniform : ndarray
        (B,), in [0, 1).
    count : int
        Number of things to permute, at least 2.

    Returns
    -------
    ndarray
        (B, count), int64: thing i becomes what thing order[i] was.
    """
    choices = factorial(count) - 1
    # The number's digits in the factorial system are a Lehmer code; 0 is the identity.
    number = 1 + np.minimum((uniform * choices).astype(np.int64), choices - 1)
    left = np.tile(np.arange(count), (len(uniform), 1))
    order = np.empty_like(left)
    for place in range(count):
        digit, number = np.divmod(number, factorial(count - 1 - place))
        order[:, place] = np.take_along_axis(left, digit[:, None], axis=1)[:, 0]
        left = left[np.arange(count - place) != digit[:, None]].reshape(len(uniform), -1)
    return order
