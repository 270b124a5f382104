"""Random numbers depend on what they are for, and on nothing else."""

import numpy as np

from lisbet.data.rng import pick, uniforms

FIXED = [[0.342688575721137, 0.31608561418457215, 0.8484115341605281]]


def test_a_row_does_not_depend_on_how_many_there_are():
    few = uniforms(1, "train/cons", epoch=2, step=3, rows=8, columns=5)
    many = uniforms(1, "train/cons", epoch=2, step=3, rows=64, columns=5)
    assert (many[:8] == few).all()


def test_everything_in_the_key_matters():
    base = {"seed": 1, "stream": "a", "epoch": 0, "step": 0}
    first = uniforms(**base, rows=4, columns=2)
    for change in ({"seed": 2}, {"stream": "b"}, {"epoch": 1}, {"step": 1}):
        assert not (uniforms(**{**base, **change}, rows=4, columns=2) == first).any()


def test_the_numbers_are_the_same_for_ever():
    """A changed generator would silently change every model; the figures are from NumPy 2.4."""
    table = uniforms(1991, "train/cons", epoch=3, step=7, rows=1, columns=3)
    np.testing.assert_array_equal(table, FIXED)


def test_pick_is_uniform_and_in_range():
    uniform = uniforms(0, "pick", epoch=0, step=0, rows=100_000, columns=1)[:, 0]
    counts = np.bincount(pick(uniform, 7), minlength=7)
    assert counts.size == 7
    assert abs(counts - 100_000 / 7).max() < 5 * np.sqrt(100_000 / 7)
    assert pick(np.array([1 - 2.0**-53]), 7) == 6
