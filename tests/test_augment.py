"""Augmentations: what they must do, against slow references, and how they are written."""

import itertools

import numpy as np
import pytest
import torch
from conftest import make_bank, names
from hypothesis import given
from hypothesis import strategies as st

from lisbet import augment
from lisbet.augment import AUGMENTATIONS
from lisbet.augment._permutations import permutations
from lisbet.augment.gauss_jitter import normals
from lisbet.augment.rotation import axis_rotation
from lisbet.cli import parse
from lisbet.core.config import Window
from lisbet.core.errors import ConfigError
from lisbet.data.rng import uniforms
from lisbet.tasks import TASKS
from lisbet.training.datasets.sampler import Sampler

W = 20
SETTINGS = {"kp_ablation": {"pB": 0.3}}


def make(name, **settings):
    return AUGMENTATIONS[name](**(SETTINGS.get(name, {}) | settings))


def windows(batch=40, individuals=3, keypoints=4, space=2, seed=0):
    """Random windows with some padding at the front and some missing points."""
    rng = np.random.default_rng(seed)
    x = 0.05 + 0.9 * rng.random((batch, W, individuals, keypoints, space)).astype(np.float32)
    for b in range(batch):
        x[b, : b % 5] = 0
    x[rng.random(x.shape[:-1]) < 0.1] = 0
    return x


def applied(augmentation, x, seed=0):
    features = names(*x.shape[2:])
    table = uniforms(
        seed, "a", epoch=0, step=0, rows=len(x), columns=1 + augmentation.columns(features)
    )
    return augmentation.apply(torch.from_numpy(x.copy()), table).numpy(), table


def order_of(u, count):
    """The slow way: list all permutations but the identity and take one."""
    every = list(itertools.permutations(range(count)))[1:]
    return list(every[int(u * len(every))])


def test_all_perm_id_equals_the_reference():
    x = windows()
    found, table = applied(make("all_perm_id", p=0.6), x)
    for b in range(len(x)):
        expected = x[b][:, order_of(table[b, 1], 3)] if table[b, 0] < 0.6 else x[b]
        np.testing.assert_array_equal(found[b], expected)


@pytest.mark.parametrize("space", [2, 3])
def test_all_perm_ax_equals_the_reference(space):
    x = windows(space=space)
    found, table = applied(make("all_perm_ax", p=0.6), x)
    for b in range(len(x)):
        expected = x[b][..., order_of(table[b, 1], space)] if table[b, 0] < 0.6 else x[b]
        np.testing.assert_array_equal(found[b], expected)


@pytest.mark.parametrize("frac", [0.1, 0.5, 1.0])
def test_blk_perm_id_equals_the_reference(frac):
    x = windows(batch=200)
    found, table = applied(make("blk_perm_id", frac=frac), x)
    block = int(frac * W)
    for b in range(len(x)):
        start = (1 - block) + int(table[b, 2] * (W + block - 1))
        expected = x[b].copy()
        inside = slice(max(start, 0), min(start + block, W))
        expected[inside] = expected[inside][:, order_of(table[b, 1], 3)]
        np.testing.assert_array_equal(found[b], expected)


def test_blk_perm_id_hits_every_frame_equally_often():
    x = np.full((30_000, W, 2, 1, 2), 0.25, np.float32)
    x[:, :, 1] = 0.75
    found, _ = applied(make("blk_perm_id", frac=0.5), x)
    share_hit = (found != x).any(axis=(2, 3, 4)).mean(axis=0)
    expected = 10 / (W + 10 - 1)  # about frac / (1 + frac)
    assert abs(expected - 0.5 / 1.5) < 0.02
    assert abs(share_hit - expected).max() < 5 * np.sqrt(expected / 30_000)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_permutations_are_never_the_identity_and_otherwise_uniform(count):
    uniform = uniforms(0, "p", epoch=0, step=0, rows=20_000, columns=1)[:, 0]
    orders = permutations(uniform, count)
    assert (np.sort(orders, axis=1) == np.arange(count)).all()
    assert (orders != np.arange(count)).any(axis=1).all()
    if count <= 4:
        _, counts = np.unique(orders, axis=0, return_counts=True)
        expected = 20_000 / (len(list(itertools.permutations(range(count)))) - 1)
        assert abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_p_is_obeyed_and_other_samples_are_untouched(name):
    x = windows(batch=3000, individuals=2, keypoints=2)
    found, table = applied(make(name, p=0.3), x)
    changed = (found != x).any(axis=(1, 2, 3, 4))
    assert (table[changed, 0] < 0.3).all()
    hit = (table[:, 0] < 0.3).mean()
    assert abs(hit - 0.3) < 0.04
    assert changed.mean() > (0.1 if name == "kp_ablation" else 0.25)
    never, _ = applied(make(name, p=0.0), x)
    np.testing.assert_array_equal(never, x)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
@pytest.mark.parametrize("space", [2, 3])
def test_what_is_missing_stays_missing_and_the_rest_stays_inside(name, space):
    x = windows(space=space)
    found, _ = applied(make(name), x)
    assert np.isfinite(found).all()
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    padding = (x == 0).all(axis=(2, 3, 4))
    assert padding.any()
    assert (found[padding] == 0).all()
    if name in ("gauss_jitter", "rotation", "kp_ablation"):
        assert (found[(x == 0).all(axis=-1)] == 0).all()
    else:  # permutations move points; none appears or is lost
        assert ((found == 0).all(-1).sum(axis=(1, 2, 3)) == (x == 0).all(-1).sum((1, 2, 3))).all()


def test_gauss_jitter_has_the_stated_spread():
    x = np.full((400, W, 2, 3, 2), 0.5, np.float32)
    found, _ = applied(make("gauss_jitter", sigma=0.02), x)
    noise = (found - x) / 0.02
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.01
    assert abs((np.abs(noise) < 1).mean() - 0.6827) < 0.01
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_noise_is_a_pure_function_of_key_and_place():
    keys = torch.tensor([5, 7, 5])
    few, many = normals(keys, 10), normals(keys, 11)
    assert torch.equal(few[0], few[2])
    assert not torch.equal(few[0], few[1])
    assert few.shape == (3, 10)
    assert many.shape == (3, 11)


def test_kp_ablation_equals_the_reference():
    x = windows()
    found, table = applied(make("kp_ablation"), x)
    for b in range(len(x)):
        lost = table[b, 1:].reshape(3, 4) < 0.3
        expected = x[b].copy()
        expected[:, lost] = 0
        np.testing.assert_array_equal(found[b], expected)


@pytest.mark.parametrize("mode", ["truncate", "rescale", "none"])
def test_rotation_in_the_plane_equals_the_reference(mode):
    x = windows()
    found, table = applied(make("rotation", mode=mode, max_angle=90), x)
    for b in range(len(x)):
        angle = np.radians(90) * (2 * table[b, 1] - 1)
        turned = (x[b] - 0.5) @ np.array(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        )
        there = (x[b] != 0).any(-1, keepdims=True)
        if mode == "rescale":
            turned *= min(1, 0.5 / np.abs(turned * there).max())
        expected = turned + 0.5
        if mode == "truncate":
            expected = expected.clip(0, 1)
        np.testing.assert_allclose(found[b], expected * there, atol=1e-6)


@pytest.mark.parametrize("mode", ["truncate", "none"])
@pytest.mark.parametrize("space", [2, 3])
def test_translation_and_scaling_equal_the_reference(mode, space):
    x = windows(space=space)
    there = (x != 0).any(-1, keepdims=True)
    found, table = applied(make("translation", mode=mode, max_shift=0.4), x)
    for b in range(len(x)):
        expected = x[b] + 0.4 * (2 * table[b, 1 : 1 + space] - 1)
        expected = expected.clip(0, 1) if mode == "truncate" else expected
        np.testing.assert_allclose(found[b], expected * there[b], atol=1e-6)
    found, table = applied(make("scaling", mode=mode, max_factor=1.5), x)
    factors = 1.5 ** (2 * table[:, 1] - 1)
    assert factors.min() < 0.8 < 1.25 < factors.max()
    for b, factor in enumerate(factors):
        expected = 0.5 + factor * (x[b] - 0.5)
        expected = expected.clip(0, 1) if mode == "truncate" else expected
        np.testing.assert_allclose(found[b], expected * there[b], atol=1e-6)


def test_reflection_exchanges_left_and_right():
    x = windows()
    found, _ = applied(make("reflection"), x)
    there = (x != 0).any(-1)
    np.testing.assert_allclose(found[..., 0][there], 1 - x[..., 0][there], atol=1e-6)
    np.testing.assert_array_equal(found[..., 1][there], x[..., 1][there])
    assert not found[~there].any()
    twice, _ = applied(make("reflection"), found)
    np.testing.assert_allclose(twice, x, atol=1e-6)


def test_rotation_in_space_keeps_distances_and_its_axis():
    uniform = uniforms(0, "r", epoch=0, step=0, rows=50, columns=3)
    angle = np.pi * (2 * uniform[:, 0] - 1)
    matrix = axis_rotation(angle, uniform[:, 1:])
    np.testing.assert_allclose(
        matrix @ matrix.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=1e-12)
    np.testing.assert_allclose(np.trace(matrix, axis1=1, axis2=2), 1 + 2 * np.cos(angle))
    x = windows(space=3)
    found, _ = applied(make("rotation", mode="none"), x)
    there = (x != 0).any(-1)
    np.testing.assert_allclose(
        np.linalg.norm(found - 0.5, axis=-1)[there], np.linalg.norm(x - 0.5, axis=-1)[there],
        atol=1e-5,
    )  # fmt: skip


EVERY = (
    "all_perm_id:p=0.5,all_perm_ax:p=0.7,blk_perm_id:p=0.3:frac=0.2,gauss_jitter:sigma=0.02,"
    "kp_ablation:pB=0.1,rotation:max_angle=30"
)


def sampler(part="train", text=EVERY, device="cpu"):
    bank = make_bank([90, 40, 60])
    tasks = {name: TASKS[name]() for name in ("cons", "order", "shift", "warp")}
    return Sampler(
        part, tasks, dict.fromkeys(tasks, bank), Window(size=W), 5, 32, 1.0, 1.0,
        augment.parse(text), torch.device(device),
    )  # fmt: skip


def test_one_batch_of_32_is_four_shares_of_8():
    whole = sampler().batch(1, 2, slice(0, 32))
    parts = [sampler().batch(1, 2, slice(8 * rank, 8 * rank + 8)) for rank in range(4)]
    for task, (x, _) in whole.items():
        assert torch.equal(torch.cat([part[task][0] for part in parts]), x)
    again = sampler().batch(1, 2, slice(0, 32))
    assert all(torch.equal(again[task][0], x) for task, (x, _) in whole.items())
    plain = sampler(text="").batch(1, 2, slice(0, 32))
    assert all((plain[task][0] != x).any() for task, (x, _) in whole.items())
    assert all((plain[task][1] == y).all() for task, (_, y) in whole.items())


def test_the_same_augmentation_twice_draws_twice():
    twice = sampler(text="all_perm_id:p=0.5,all_perm_id:p=0.5").batch(0, 0, slice(0, 32))
    once = sampler(text="all_perm_id:p=0.5").batch(0, 0, slice(0, 32))
    plain = sampler(text="").batch(0, 0, slice(0, 32))
    x, y, z = (batch["warp"][0] for batch in (twice, once, plain))
    back = (x == z).flatten(1).all(1) & (y != z).flatten(1).any(1)
    assert 0 < back.sum() < 16


def test_held_out_data_are_not_augmented(tmp_path):
    from conftest import TINY, write_dataset

    from lisbet.training.inputs import TrainingInputs

    data = write_dataset(tmp_path / "data", [40, 50, 60, 30])
    line = ["train_model", *TINY, "--dev_ratio=0.5", f"--data_augmentation={EVERY}", str(data)]
    setup = TrainingInputs.from_options(parse(line).options, torch.device("cpu"))
    assert len(setup.train.augmentations) == 6
    assert setup.dev.augmentations == ()


# How they are written ----------------------------------------------------------------------------


def test_read_and_written():
    read = augment.parse("all_perm_id, rotation:mode=none:p=0.25")
    assert [a.name for a in read] == ["all_perm_id", "rotation"]
    assert (read[0].p, read[1].p, read[1].max_angle, read[1].mode) == (1.0, 0.25, 180.0, "none")
    assert augment.parse(augment.as_text(read)) == read
    assert augment.parse("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("all_perm_di", "did you mean 'all_perm_id'"),
        ("all_perm_id:frac=0.5", "no parameter 'frac' (frac belongs to blk_perm_id)"),
        ("all_perm_id:q=0.5", "no parameter 'q'; it has p"),
        ("all_perm_id:p=1.5", "p=1.5"),
        ("all_perm_id:p=-0.1", "p=-0.1"),
        ("all_perm_id:p=half", "p=half"),
        ("all_perm_id:p=nan", "p=nan"),
        ("blk_perm_id:frac=0", "frac=0"),
        ("blk_perm_id:frac=1.1", "frac=1.1"),
        ("gauss_jitter:sigma=-1", "sigma=-1"),
        ("gauss_jitter:sigma=inf", "sigma=inf"),
        ("kp_ablation:p=0.5", "pB is missing"),
        ("rotation:mode=wrap", "mode=wrap"),
        ("rotation:max_angle=270", "max_angle=270"),
        ("all_perm_id:p", "expected key=value, got 'p'"),
        ("all_perm_id:p=0.5:p=0.6", "p is given twice"),
        ("all_perm_id,,all_perm_ax", "an augmentation is empty"),
        ("all_perm_id p=0.5", "no augmentation"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        parse(["train_model", f"--data_augmentation={text}", "data"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "features", "message"),
    [
        ("all_perm_id", {}, names(individuals=1), "2 to 18 individuals; the recordings have 1"),
        ("blk_perm_id", {"frac": 0.01}, names(), "no whole frame"),
        ("all_perm_ax", {}, names(space=1), "2 to 18 space"),
        ("rotation", {}, names(space=1), "2 or 3 axes"),
    ],
)
def test_data_that_cannot_be_changed_so(name, settings, features, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **settings).check(features, Window(size=W))


@given(st.text(alphabet="alpermidxk_:=,.0159 \tpBσ", max_size=40))
def test_any_text_is_read_or_refused_clearly(text):
    try:
        augment.parse(text)
    except (ConfigError, ValueError) as error:
        assert str(error)


@given(
    st.lists(
        st.one_of(
            st.builds(AUGMENTATIONS["blk_perm_id"], p=st.floats(0, 1), frac=st.floats(1e-3, 1)),
            st.builds(AUGMENTATIONS["gauss_jitter"], sigma=st.floats(0, 10)),
            st.builds(AUGMENTATIONS["rotation"], max_angle=st.floats(0, 180)),
        )
    )
)
def test_whatever_is_written_reads_back(augmentations):
    assert augment.parse(augment.as_text(augmentations)) == tuple(augmentations)
