"""Scaling that a few outliers do not set, and what is said where they do."""

import numpy as np
import pytest
from conftest import names, walk, write_recording

from lisbet.cli import main
from lisbet.core.config import Dataset
from lisbet.core.errors import DataError
from lisbet.core.option_values import Scale
from lisbet.data.load import load_records
from lisbet.options import DataOptions


def load(path, **options):
    return load_records(Dataset(path=path, format="movement"), DataOptions(**options))


def arena(frames: int = 400, *, wide: float = 300.0) -> np.ndarray:
    """Points all over a field of 100 to 100 + wide by 50 to 150."""
    rng = np.random.default_rng(0)
    return rng.uniform((100, 50), (100 + wide, 150), (frames, 2, 3, 2))


def test_one_factor_for_all_axes_and_the_middle_at_one_half(tmp_path):
    tracks = arena()
    write_recording(tmp_path / "r", tracks, names())
    (record,) = load(tmp_path, data_scale="robust")
    low, high = np.percentile(tracks.reshape(-1, 2), (0.5, 99.5), axis=0)
    extent = 1.5 * (high - low)[0]
    expected = 0.5 + (tracks - (low + high) / 2) / extent
    np.testing.assert_allclose(record.position, expected, atol=1e-6)
    assert record.missing == 0, "a quarter on each side holds all that is no outlier"
    said = record.steps[-1]
    assert "one factor for all axes (percentiles 0.5 and 99.5, and 25% more on each side)" in said


@pytest.mark.parametrize("value", [3123.0, -900.0, 1e7])
def test_outliers_do_not_move_the_others(tmp_path, value):
    tracks = arena()
    write_recording(tmp_path / "clean" / "r", tracks, names())
    (clean,) = load(tmp_path / "clean", data_scale="robust")
    tracks[[5, 50, 333], 1, 2, 0] = value
    write_recording(tmp_path / "spoilt" / "r", tracks, names())
    (spoilt,) = load(tmp_path / "spoilt", data_scale="robust")
    assert np.isnan(spoilt.position[[5, 50, 333], 1, 2]).all()
    assert spoilt.missing == 3 / 2400
    others = ~np.isnan(spoilt.position)
    np.testing.assert_allclose(spoilt.position[others], clean.position[others], atol=5e-3)
    assert spoilt.steps[0].startswith("3 points outside ")
    (filled,) = load(tmp_path / "spoilt", data_scale="robust", max_gap=1)
    assert filled.missing == 0


def test_missing_points_and_a_flat_axis(tmp_path):
    tracks = arena()
    tracks[:100, 0] = np.nan
    tracks[..., 1] = 77
    write_recording(tmp_path / "r", tracks, names())
    (record,) = load(tmp_path, data_scale="robust")
    assert record.missing == pytest.approx(1 / 8)
    assert (record.position[..., 1][~np.isnan(record.position[..., 1])] == 0.5).all()
    tracks[...] = 7.5
    tracks[3, 0, 0] = 9
    write_recording(tmp_path / "r", tracks, names())
    with pytest.raises(DataError, match="are the same almost everywhere"):
        load(tmp_path, data_scale="robust")


@pytest.mark.parametrize("text", ["robust", "ROBUST"])
def test_the_word_reads_back(text):
    assert str(Scale.parse(text)) == "robust"
    assert Scale.parse(str(Scale.parse(text))) == Scale.parse(text) != Scale.parse("minmax")


def test_what_outliers_do_to_minmax_is_said(tmp_path, capsys, monkeypatch):
    tracks = arena()
    write_recording(tmp_path / "clean", tracks, names())
    main(["dataset_info", str(tmp_path)])
    assert "outliers" not in capsys.readouterr().out
    low, high = tracks[..., 0].min(), tracks[..., 0].max()
    tracks[[5, 50, 333], 1, 2, 0] = 3123
    write_recording(tmp_path / "spoilt", tracks, names())
    main(["dataset_info", str(tmp_path)])
    said = capsys.readouterr().out
    note = (
        f"3 of 2400 values of x stretch its range from {low:.5g} … {high:.5g} to {low:.5g} … 3123"
    )
    assert f"spoilt: {note}" in said
    assert "--data_scale=robust" in said
    assert "clean: " not in said
    for scale in ("robust", "4000x4000"):
        main(["dataset_info", f"--data_scale={scale}", str(tmp_path)])
        assert "outliers" not in capsys.readouterr().out
    logged = []
    monkeypatch.setattr("lisbet.data.load.log.info", lambda text, *a: logged.append(text % a))
    records = load(tmp_path)
    assert records[1].steps[-1] == f"{note} (--data_scale=robust or the size of the video avoid it)"
    assert any(note in message for message in logged), "-v says it"
    assert records[1].position[..., 0][~np.isnan(records[1].position[..., 0])].max() == 1


def test_uniform_and_bimodal_recordings_have_no_outliers(tmp_path):
    """An animal that visits a far corner often has none."""
    tracks = arena()
    tracks[::20] += 2000  # 5 % of the frames
    write_recording(tmp_path / "r", tracks, names())
    assert len(load(tmp_path)[0].steps) == 1
    write_recording(tmp_path / "r", walk(400, names(), 0), names())
    assert len(load(tmp_path)[0].steps) == 1


def test_real_recordings_with_outliers(real):
    """DLC3: of 79 800 values of x, 11 lie outside of the video, up to 3123; most are below 1220."""
    minmax = load(real / "mouse_pair_nc_netcdf4")[0]
    assert minmax.digest.startswith("efcd47364cc6"), "as the contract has it"
    assert any("of 79800 values of x stretch its range" in step for step in minmax.steps)
    (record,) = load(real / "mouse_pair_nc_netcdf4", data_scale="robust")
    assert 11 / 79800 <= record.missing < 0.001
    spread = [np.nanpercentile(r.position[..., 0], (1, 99)) for r in (minmax, record)]
    assert np.diff(spread[0]) < 0.32 < 0.6 < np.diff(spread[1])
