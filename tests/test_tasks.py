"""Each task against the slow reference, sample for sample, and its label frequencies."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from conftest import make_bank, names

from lisbet.cli import parse
from lisbet.core.config import Window
from lisbet.core.errors import ConfigError, DataError
from lisbet.data.bank import gather
from lisbet.data.rng import uniforms
from lisbet.tasks import TASKS, SelfSupervisedTask
from lisbet.training.inputs import check_without_recordings

SELF_SUPERVISED = [name for name in TASKS if issubclass(TASKS[name], SelfSupervisedTask)]
LENGTHS = [150, 7, 90, 33, 1]
CASES = [
    (name, settings, window, individuals)
    for name, settings in (
        ("cons", {}),
        ("order", {}),
        ("order", {"negatives": "simple"}),
        ("shift", {}),
        ("warp", {}),
    )
    for window in (Window(size=20), Window(size=20, offset=6), Window(size=200, offset=30))
    for individuals in (2, 3)
]


def recordings_of(bank):
    return [
        bank.tracks[start : start + length].numpy()
        for start, length in zip(bank.starts, bank.lengths, strict=True)
    ]


@pytest.mark.parametrize(("name", "settings", "window", "individuals"), CASES)
def test_equals_the_reference(name, settings, window, individuals):
    bank = make_bank(LENGTHS, names(individuals=individuals))
    task = TASKS[name](**settings)
    table = uniforms(3, name, epoch=1, step=2, rows=300, columns=task.columns)
    index, labels = task.sample(table, bank, window)
    windows = gather(bank, index, window).numpy()
    ends = set()
    for row, x, label in zip(table, windows, labels, strict=True):
        expected, answer = getattr(reference, name)(
            row, recordings_of(bank), window.size, window.offset, **settings
        )
        np.testing.assert_allclose(x, expected, atol=1e-6 if name == "warp" else 0)
        assert label == answer
        ends |= {(x[0] == 0).all(), (x[-1] == 0).all() and "after"}
    assert True in ends, "no window reached over the beginning of a recording"
    if window.offset:
        assert "after" in ends, "no window reached over the end of a recording"


def test_a_window_of_two_frames_is_possible():
    bank, window = make_bank([9, 5]), Window(size=2)
    for name in SELF_SUPERVISED:
        task = TASKS[name]()
        table = uniforms(0, name, epoch=0, step=0, rows=64, columns=task.columns)
        index, labels = task.sample(table, bank, window)
        for row, x, label in zip(table, gather(bank, index, window).numpy(), labels, strict=True):
            expected, answer = getattr(reference, name)(row, recordings_of(bank), 2, 0)
            np.testing.assert_allclose(x, expected, atol=1e-6)
            assert label == answer


@pytest.mark.parametrize(
    ("name", "expected"), [("cons", 0.5), ("order", 0.5), ("shift", 59 / 120), ("warp", 0.5)]
)
def test_label_frequencies(name, expected):
    bank = make_bank([5000, 4000])
    task = TASKS[name]()
    table = uniforms(0, name, epoch=0, step=0, rows=40_000, columns=task.columns)
    _, labels = task.sample(table, bank, Window(size=20))
    assert abs(labels.mean() - expected) < 4 * 0.5 / 200  # four standard errors


def test_frames_are_drawn_uniformly_so_that_long_recordings_count_in_proportion():
    bank = make_bank([10, 30, 60])
    table = uniforms(0, "x", epoch=0, step=0, rows=100_000, columns=1)
    record, frame = bank.draw(table[:, 0])
    counts = np.bincount(np.array([0, 10, 40])[record] + frame, minlength=100)
    assert counts.size == 100
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_the_other_recording_of_cons_is_drawn_as_if_drawing_again():
    bank = make_bank([50, 100, 200])
    table = uniforms(0, "x", epoch=0, step=0, rows=60_000, columns=4)
    index, labels = TASKS["cons"]().sample(table, bank, Window(size=5))
    mixed = index.record[labels == 1][:, 0]
    assert (mixed[:, 0] != mixed[:, 1]).all()
    from_first = mixed[mixed[:, 0] == 0][:, 1]
    assert abs((from_first == 1).mean() - 1 / 3) < 0.02


def test_every_individual_is_exchanged_and_the_first_never():
    bank = make_bank([100, 100], names(individuals=4))
    for name in ("cons", "shift"):
        table = uniforms(0, name, epoch=0, step=0, rows=2000, columns=TASKS[name].columns)
        index, _ = TASKS[name]().sample(table, bank, Window(size=5))
        moved = (index.record != index.record[..., :1]) | (index.frame != index.frame[..., :1])
        share = moved[:, 0].mean(axis=0)
        assert share[0] == 0
        assert (np.diff(share) > 0.1).all()


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_self_supervised_tasks_need_two_individuals(name):
    with pytest.raises(DataError, match="at least 2 individuals"):
        TASKS[name]().check(make_bank([9, 9], names(individuals=1)))


def test_cons_needs_two_recordings():
    with pytest.raises(DataError, match="there is only 1 \\(r0\\)"):
        TASKS["cons"]().check(make_bank([50]))


def test_recordings_of_another_frame_rate():
    """Twice the rate and fps_scaling=2: the windows of every other frame, and warp on top."""
    bank, window = make_bank([301, 201]), Window(size=11, offset=2)
    for name in SELF_SUPERVISED:
        task = TASKS[name]()
        table = uniforms(0, name, epoch=0, step=0, rows=200, columns=task.columns)
        index, _ = task.sample(table, bank, window)
        own = np.ones(200) if index.speed is None else index.speed
        found = gather(bank, replace(index, speed=2 * own), window).numpy()
        for b, x in enumerate(found):
            parts = []
            for part in range(index.record.shape[1]):
                count = round(2 * own[b] * 11)
                where = np.linspace(0, count - 1, 11)
                taken = [
                    reference.window(
                        recordings_of(bank)[index.record[b, part, g]],
                        index.frame[b, part, g],
                        count,
                        round(2 * own[b] * 2),
                    )
                    for g in range(index.record.shape[2])
                ]
                x_part = np.concatenate(
                    [t[:, [g]] if len(taken) > 1 else t for g, t in enumerate(taken)], axis=1
                ).reshape(count, -1)
                columns = [np.interp(where, np.arange(count), c) for c in x_part.T]
                parts.append(np.stack(columns, 1).reshape(x.shape))
            expected = parts[0]
            if index.cut is not None:
                cut = index.cut[b]
                expected = np.concatenate([parts[0][:cut], parts[1][cut:]])
            np.testing.assert_allclose(x, expected, atol=1e-6)


def test_a_window_covers_two_frames_at_the_slowest_speed_of_a_task():
    """200 frames at 0.01 are 2 frames of the recording; at half that speed, only one."""
    options = {
        task: parse(["train_model", "--fps_scaling=0.01", f"--task_ids={task}", "data"]).options
        for task in ("order", "warp")
    }
    check_without_recordings(options["order"])
    with pytest.raises(ConfigError, match="less than two frames"):
        check_without_recordings(options["warp"])
