"""Batches that are made together are those that are made one at a time."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY
from test_stream import LENGTHS, MEMORY, moving

from lisbet.training.datasets.batch_buffer import AT_ONCE, BatchBuffer
from lisbet.training.datasets.sampler import Sampler
from lisbet.training.inputs import TrainingInputs

SIZE = 8
AUGMENTED = (
    "all_perm_id:p=0.5,blk_perm_id:p=0.5,reflection:p=0.5,rotation:mode=none,translation:mode=none,"
    "scaling:mode=none,gauss_jitter:sigma=0.01,kp_ablation:pB=0.2"
)


def inputs_of(dataset, *words):
    from lisbet.cli import parse

    line = ["train_model", *TINY, *words]
    return TrainingInputs.from_options(parse([*line, str(dataset)]).options, torch.device("cpu"))


def equal(one, other):
    assert one.keys() == other.keys()
    for name, parts in one.items():
        for a, b in zip(parts, other[name], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("augmentation", ["", AUGMENTED])
@pytest.mark.parametrize("rows", [[slice(0, 16)], [slice(0, 5), slice(5, 16)], [slice(7, 8)]])
def test_batches_are_the_same(dataset, augmentation, rows):
    inputs = inputs_of(dataset, "--task_ids=cons,order,shift,warp,kinematics",
                       "--set=kinematics.front=point0,kinematics.back=point2",
                       f"--data_augmentation={augmentation}")  # fmt: skip
    buffer = BatchBuffer(inputs.train, 0.5, SIZE)
    steps = inputs.train.steps
    assert steps > 2
    places = [(0, step) for step in range(steps)] + [(1, 2), (1, 3), (0, 1), (0, 1), (1, steps - 1)]
    for epoch, step in places:
        for own in rows:
            batch, noise = buffer.batch(epoch, step, own)
            equal(batch, inputs.train.batch(epoch, step, own))
            expected = inputs.train.noise(epoch, range(step, step + 1), own, 0.5, SIZE)
            assert all(torch.equal(noise[name], expected[name]) for name in expected)
            assert len(next(iter(noise.values()))) == own.stop - own.start


def test_small_batches_are_made_together(dataset, monkeypatch):
    sampler = inputs_of(dataset, "--task_ids=order").train
    made = []
    whole = Sampler.batches

    def batches(self, epoch, steps, rows):
        made.append(steps)
        return whole(self, epoch, steps, rows)

    monkeypatch.setattr(Sampler, "batches", batches)
    buffer, rows = BatchBuffer(sampler, 0, SIZE), slice(0, 16)
    together = AT_ONCE // 16
    for step in range(together + 1):
        assert buffer.batch(0, step, rows)[1] is None
    assert made == [range(together), range(together, min(2 * together, sampler.steps))]
    buffer.batch(1, sampler.steps - 1, rows)
    assert made[-1] == range(sampler.steps - 1, sampler.steps)


def test_recordings_that_move_are_drawn_from_at_their_step(dataset):
    sampler = inputs_of(dataset, "--task_ids=order").train
    sampler = replace(sampler, banks={"order": moving(LENGTHS, MEMORY)})
    buffer = BatchBuffer(sampler, 0, SIZE)
    assert len({sampler.bank("order", 0, step).ids for step in range(sampler.steps)}) > 1
    for step in range(sampler.steps):
        batch, _ = buffer.batch(0, step, slice(0, 16))
        equal(batch, sampler.batch(0, step, slice(0, 16)))
