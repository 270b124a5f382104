"""SLEAP projects, Lightning Pose, Anipose, NWB and MARS files, made by their libraries or by hand.

Every expected value is what was put into the file, or what another library reads from it.
"""

import datetime
import json
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import names, walk, write_recording
from test_readers import load, write_dlc

from lisbet import contracts
from lisbet.core.config import Dataset, Features
from lisbet.core.errors import ConfigError, DataError
from lisbet.data.files.sources import find_sources
from lisbet.data.load import load_records
from lisbet.data.readers import READERS, Peek
from lisbet.data.readers.auto import format_of
from lisbet.data.record import from_dataset
from lisbet.options import DataOptions

FRAMES = 24
MICE = Features(individuals=("resident", "intruder"), space=("x", "y"), keypoints=(
    "nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail"))  # fmt: skip


def read(format, file):
    return from_dataset("r", file, READERS[format].read([file]))


def some(frames=FRAMES, individuals=2, keypoints=3, space=2, seed=0, features=None):
    """Tracks with gaps, (frames, individuals, keypoints, space), and how sure they are."""
    rng = np.random.default_rng(seed)
    features = features or names(individuals, keypoints, space)
    tracks = walk(frames, features, seed)
    missing = rng.random(tracks.shape[:3]) < 0.15
    missing[-1] = False  # a table ends with its last point
    tracks[missing] = np.nan
    return features, tracks, np.where(missing, np.nan, rng.random(tracks.shape[:3]))


def require_same(record, features, tracks, confidence=None, tolerance=1e-5):
    """Compare by names, whatever the order of the file is."""
    place = [
        [getattr(record.features, axis).index(name) for name in getattr(features, axis)]
        for axis in ("individuals", "keypoints", "space")
    ]
    assert all(
        len(getattr(record.features, axis)) == len(own)
        for axis, own in zip(("individuals", "keypoints", "space"), place, strict=True)
    )
    found = record.position[:, place[0]][:, :, place[1]][..., place[2]]
    np.testing.assert_allclose(found, tracks, atol=tolerance, rtol=tolerance)
    if confidence is not None:
        own = record.confidence[:, place[0]][:, :, place[1]]
        known = np.isfinite(tracks[..., 0])
        np.testing.assert_allclose(own[known], confidence[known], atol=tolerance)


# Writers of each format ------------------------------------------------------------------------


def write_slp(file, features, tracks, confidence, *, tracked=True, fps=None, videos=1, users=()):
    """A project of SLEAP, written by sleap-io; frames of `users` were placed by a person."""
    import sleap_io as sio

    skeleton = sio.Skeleton(nodes=list(features.keypoints))
    metadata = {"fps": fps} if fps else {}
    films = [sio.Video(f"m{n}.mp4", backend_metadata=dict(metadata), open_backend=False)
             for n in range(videos)]  # fmt: skip
    animals = [sio.Track(name) for name in features.individuals]
    labelled = []
    for number in range(len(tracks)):
        instances = []
        for place, animal in enumerate(animals):
            own = {"skeleton": skeleton, "track": animal if tracked else None}
            points = tracks[number, place]
            if number in users:
                instances.append(sio.Instance.from_numpy(points, **own))
                points = points + 40  # what the network had predicted
            instances.append(
                sio.PredictedInstance.from_numpy(
                    points, point_scores=np.nan_to_num(confidence[number, place]), score=0.9, **own
                )
            )
        film = films[number * videos // len(tracks)]
        labelled.append(sio.LabeledFrame(video=film, frame_idx=number, instances=instances))
    labels = sio.Labels(videos=films, skeletons=[skeleton], labeled_frames=labelled,
                        tracks=animals if tracked else [])  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    sio.save_slp(labels, str(file))
    return file


def write_lightning_pose(file, features, tracks, confidence, scorer="heatmap_tracker", rows=None):
    columns, values = [], []
    for number, keypoint in enumerate(features.keypoints):
        for coordinate, own in (("x", tracks[:, 0, number, 0]), ("y", tracks[:, 0, number, 1]),
                                ("likelihood", confidence[:, 0, number])):  # fmt: skip
            columns.append((scorer, keypoint, coordinate))
            values.append(own)
    index = pd.MultiIndex.from_tuples(columns, names=["scorer", "bodyparts", "coords"])
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(np.stack(values, 1), columns=index).to_csv(file)
    return file


def write_anipose(file, features, tracks, confidence, frames=None):
    table = {}
    for number, keypoint in enumerate(features.keypoints):
        for axis, name in enumerate("xyz"):
            table[f"{keypoint}_{name}"] = tracks[:, 0, number, axis]
        table[f"{keypoint}_error"] = np.full(len(tracks), 1.5)
        table[f"{keypoint}_ncams"] = np.full(len(tracks), 3.0)
        table[f"{keypoint}_score"] = confidence[:, 0, number]
    for row in range(3):
        table |= {f"M_{row}{column}": float(row == column) for column in range(3)}
    table |= {f"center_{number}": 0.0 for number in range(3)}
    table["fnum"] = np.arange(len(tracks)) if frames is None else frames
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_csv(file, index=False)
    return file


def write_nwb(file, features, tracks, confidence, *, fps=30.0, times=None, animals=None, **more):
    """Poses as ndx-pose writes them, one PoseEstimation for each animal."""
    import pynwb
    from ndx_pose import PoseEstimation, PoseEstimationSeries, Skeleton, Skeletons

    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    content = pynwb.NWBFile("test", "session_1", start)
    module = content.create_processing_module("behavior", "poses")
    skeleton = Skeleton(name="skeleton", nodes=list(features.keypoints))
    module.add(Skeletons(skeletons=[skeleton]))
    clock = {"rate": fps, "starting_time": 7.0} if times is None else {"timestamps": times}
    for place, animal in enumerate(animals or features.individuals):
        series = [
            PoseEstimationSeries(
                name=keypoint, description="", data=tracks[:, place, number], unit="pixels",
                reference_frame="top left", confidence=confidence[:, place, number],
                confidence_definition="softmax", **clock,
            )
            for number, keypoint in enumerate(features.keypoints)
        ]  # fmt: skip
        own = {key: content.create_device(value[place]) if key == "device" else value[place]
               for key, value in more.items()}  # fmt: skip
        module.add(
            PoseEstimation(
                name=animal,
                pose_estimation_series=series,
                description="",
                source_software="DeepLabCut",
                skeleton=skeleton,
                **own,
            )
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with pynwb.NWBHDF5IO(str(file), "w") as stream:
        stream.write(content)
    return file


def mars(tracks, confidence):
    """A sequence of MARS: keypoints (frames, mice, axes, 7)."""
    return {"keypoints": tracks.transpose(0, 1, 3, 2).tolist(), "scores": confidence.tolist()}


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


# SLEAP projects --------------------------------------------------------------------------------


def test_a_sleap_project(tmp_path):
    features, tracks, confidence = some()
    file = write_slp(tmp_path / "r" / "m.slp", features, tracks, confidence, fps=25.0, users=(3, 5))
    record = contracts.check_recording_reader(READERS["sleap"], [file])
    confidence[[3, 5]] = 1
    require_same(record, features, tracks, confidence)
    assert record.fps == 25
    with h5py.File(file) as root:  # the frame rate is where sleap-io put it
        assert json.loads(root["videos_json"][0])["backend"]["fps"] == 25
    assert [source.files for source in find_sources(Dataset(path=tmp_path, format="auto"))] == [
        (file,)
    ]
    doubtful = np.isfinite(tracks[..., 0]) & (confidence < 0.5)
    (sure,) = load(tmp_path, "sleap", min_confidence=0.5)
    lost = np.isnan(sure.position[..., 0]) & np.isfinite(tracks[..., 0])
    np.testing.assert_array_equal(lost, doubtful)


def test_what_movement_reads_of_a_sleap_project_is_the_same(tmp_path):
    from movement.io import load_poses

    features, tracks, confidence = some()
    file = write_slp(tmp_path / "m.slp", features, tracks, confidence)
    theirs = load_poses.from_sleap_file(file)
    require_same(from_dataset("r", file, theirs), features, tracks, confidence)
    require_same(read("sleap", file), features, tracks, confidence)


def test_projects_that_movement_reads_wrongly_are_refused(tmp_path):
    """It takes the first of two videos, and the last of two animals without tracks."""
    from movement.io import load_poses

    features, tracks, confidence = some()
    two = write_slp(tmp_path / "two" / "m.slp", features, tracks, confidence, videos=2)
    assert load_poses.from_sleap_file(two).sizes["time"] == FRAMES // 2
    mixed = write_slp(tmp_path / "mixed" / "m.slp", features, tracks, confidence, tracked=False)
    theirs = load_poses.from_sleap_file(mixed)
    assert theirs.sizes[next(dim for dim in theirs.dims if str(dim).startswith("indiv"))] == 1
    for file, reason in ((two, "of 2 videos"), (mixed, "no tracks, and 2 animals in one frame")):
        with pytest.raises(DataError, match=rf"m.slp is a SLEAP project with .*{reason}.*export"):
            READERS["sleap"].read([file])
        kind = READERS["sleap"].recognise(Peek(file))
        assert not kind.usable
        with pytest.raises(DataError, match=f"m.slp .*{reason}"):
            load(file.parent, "auto")


def test_one_animal_without_tracks(tmp_path):
    features, tracks, confidence = some(individuals=1)
    file = write_slp(tmp_path / "m.slp", features, tracks, confidence, tracked=False)
    record = read("sleap", file)
    assert record.features.individuals == ("individual_0",)
    np.testing.assert_allclose(record.position, tracks, atol=1e-5)


def test_training_labels_are_no_tracks(tmp_path):
    import sleap_io as sio

    features, tracks, confidence = some(individuals=1)
    file = write_slp(tmp_path / "labels.slp", features, tracks, confidence, users=range(FRAMES))
    labels = sio.load_slp(str(file), open_videos=False)
    for frame in labels.labeled_frames:
        frame.frame_idx *= 50
    sio.save_slp(labels, str(file))
    with pytest.raises(DataError, match="24 labelled frames up to frame 1150, .* training data"):
        READERS["sleap"].read([file])


def test_an_analysis_file_comes_before_its_project(tmp_path):
    features, tracks, confidence = some()
    write_slp(tmp_path / "r" / "m.slp", features, tracks + 20, confidence)
    with h5py.File(tmp_path / "r" / "m.analysis.h5", "w") as root:
        root["tracks"] = tracks.transpose(1, 3, 2, 0)
        root["node_names"] = list(features.keypoints)
        root["track_names"] = list(features.individuals)
    (source,) = find_sources(Dataset(path=tmp_path, format="auto"))
    assert [file.name for file in source.files] == ["m.analysis.h5"]


# Lightning Pose --------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", ["heatmap_tracker", "ensemble-kalman_tracker"])
def test_lightning_pose(tmp_path, scorer):
    features, tracks, confidence = some(individuals=1)
    file = write_lightning_pose(tmp_path / "r" / "m.csv", features, tracks, confidence, scorer)
    record = contracts.check_recording_reader(READERS["lightningpose"], [file])
    own = features.model_copy(update={"individuals": ("individual_0",)})
    require_same(record, own, tracks, confidence)
    assert format_of(Peek(file))[0] == "lightningpose"
    for own_name in ("auto", "dlc", "LightningPose"):  # the layout is DeepLabCut's
        require_same(load(tmp_path, own_name, data_scale="100x100")[0], own, tracks / 100)
    from movement.io import load_poses

    theirs = from_dataset("r", file, load_poses.from_lp_file(file))
    assert theirs.features.keypoints == features.keypoints
    np.testing.assert_allclose(theirs.position, tracks, atol=1e-5)


def test_tables_of_deeplabcut_are_not_of_lightning_pose(tmp_path):
    features = names(1)
    file = tmp_path / "r" / "m1DLC_resnet50_projectshuffle1_1000.csv"
    write_dlc(file, walk(9, features, 0), features, multi=False)
    assert format_of(Peek(file))[0] == "dlc"
    with pytest.raises(DataError, match="no table of Lightning Pose.*--data_format=dlc"):
        READERS["lightningpose"].read([file])
    with pytest.raises(DataError, match="1 of dlc"):
        load(tmp_path, "lightningpose")


# DeepLabCut in HDF5 ----------------------------------------------------------------------------


@pytest.mark.parametrize("multi", [True, False])
def test_deeplabcut_hdf5_of_one_and_of_several_animals(tmp_path, multi):
    features, tracks, _ = some(individuals=2 if multi else 1)
    csv = tmp_path / "c" / "m1DLC_resnet50_pshuffle1_1.csv"
    write_dlc(csv, tracks, features, multi=multi)
    table = pd.read_csv(csv, header=[0, 1, 2, 3] if multi else [0, 1, 2], index_col=0)
    (tmp_path / "h").mkdir()
    file = tmp_path / "h" / csv.with_suffix(".h5").name
    table.to_hdf(file, key="df_with_missing", format="table")
    own = features if multi else features.model_copy(update={"individuals": ("individual_0",)})
    require_same(read("dlc", file), own, tracks, np.ones(tracks.shape[:3]))
    assert format_of(Peek(file))[0] == "dlc"


# Anipose ---------------------------------------------------------------------------------------


def test_anipose(tmp_path):
    features, tracks, confidence = some(individuals=1, space=3)
    file = write_anipose(tmp_path / "r" / "m.csv", features, tracks, confidence)
    record = contracts.check_recording_reader(READERS["anipose"], [file])
    own = features.model_copy(update={"individuals": ("individual_0",)})
    require_same(record, own, tracks, confidence)
    assert record.features.keypoints == features.keypoints
    (sure,) = load(tmp_path, "auto", data_scale="100x100x100", min_confidence=0.5)
    lost = np.isnan(sure.position[..., 0]) & np.isfinite(tracks[..., 0])
    np.testing.assert_array_equal(lost, np.isfinite(tracks[..., 0]) & (confidence < 0.5))


def test_frame_numbers_of_anipose_count_but_not_in_movement(tmp_path):
    from movement.io import load_poses

    features, tracks, confidence = some(frames=12, individuals=1, space=3)
    numbers = np.array([0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13])
    file = write_anipose(tmp_path / "m.csv", features, tracks, confidence, frames=numbers)
    record = read("anipose", file)
    assert record.frames == 14
    assert np.isnan(record.position[6:8]).all()
    np.testing.assert_allclose(record.position[numbers], tracks)
    theirs = load_poses.from_anipose_file(file)
    assert theirs.sizes["time"] == 12
    np.testing.assert_allclose(theirs["position"].values[6, :, 0, 0], tracks[6, 0, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], r"line \d+ has \d+ cells|cut off there"),
        (lambda text: text.replace("point1_z", "point1_q"), "column 'point1_x', but not all of"),
        (lambda text: text.replace("fnum", "frame"), "no table of Anipose"),
        (lambda text: text.replace("point1_y", "point0_y"), "two columns 'point0_y'"),
        (lambda text: text.replace("\n3", "\nx3", 1), "expected a number"),
        (lambda text: "", "no table of Anipose"),
    ],
)
def test_damaged_tables_of_anipose(tmp_path, change, message):
    features, tracks, confidence = some(individuals=1, space=3)
    file = write_anipose(tmp_path / "m.csv", features, np.abs(np.nan_to_num(tracks)) + 30,
                         confidence)  # fmt: skip
    file.write_text(change(file.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        READERS["anipose"].read([file])
    assert "m.csv" in str(caught.value)


# NWB -------------------------------------------------------------------------------------------


def test_poses_in_an_nwb_file(tmp_path):
    import pynwb

    features, tracks, confidence = some()
    file = write_nwb(tmp_path / "r" / "m.nwb", features, tracks, confidence, fps=25.0)
    record = contracts.check_recording_reader(READERS["nwb"], [file])
    require_same(record, features, tracks, confidence)
    assert record.fps == 25
    assert record.start_s == 0
    with pynwb.NWBHDF5IO(str(file), "r") as stream:
        series = stream.read().processing["behavior"]["mouse1"]["point2"]
        place = [record.features.individuals.index("mouse1"),
                 record.features.keypoints.index("point2")]  # fmt: skip
        np.testing.assert_allclose(record.position[:, place[0], place[1]], series.data[:])
    (found,) = load(tmp_path, "auto", data_scale="100x100")
    require_same(found, features, tracks / 100)


def test_movement_reads_one_of_the_animals_of_an_nwb_file(tmp_path):
    from movement.io import load_poses

    features, tracks, confidence = some()
    file = write_nwb(tmp_path / "m.nwb", features, tracks, confidence,
                     animals=("PoseEstimation", "SecondMouse"))  # fmt: skip
    theirs = load_poses.from_nwb_file(file)
    assert theirs.sizes[next(dim for dim in theirs.dims if str(dim).startswith("indiv"))] == 1
    assert set(read("nwb", file).features.individuals) == {"PoseEstimation", "SecondMouse"}


def test_one_animal_of_an_nwb_file_and_its_times(tmp_path):
    features, tracks, confidence = some(individuals=1)
    times = 100 + np.arange(FRAMES) / 20
    times[10:] += 2 / 20  # two frames were left out
    file = write_nwb(tmp_path / "r" / "m.nwb", features, tracks, confidence, times=times)
    with pytest.raises(DataError, match="time_gaps=missing"):
        load(tmp_path, "nwb")
    (record,) = load(tmp_path, "nwb", time_gaps="missing", data_scale="100x100")
    assert record.features.individuals == ("individual_0",)
    assert (record.frames, record.fps) == (FRAMES + 2, pytest.approx(20))
    assert np.isnan(record.position[10:12]).all()
    np.testing.assert_allclose(record.position[12:], tracks[10:] / 100, atol=1e-6)
    assert READERS["nwb"].recognise(Peek(file)).usable


@pytest.mark.parametrize(
    "views", [{"animals": ("PoseEstimationCamera1", "PoseEstimationCamera2")},
              {"device": ("one", "two")}],
)  # fmt: skip
def test_views_of_one_animal_are_not_taken_for_animals(tmp_path, views):
    features, tracks, confidence = some()
    file = write_nwb(tmp_path / "m.nwb", features, tracks, confidence, **views)
    with pytest.raises(DataError, match="of several cameras or videos"):
        READERS["nwb"].read([file])


def test_nwb_without_its_packages_and_without_poses(tmp_path, monkeypatch):
    import pynwb

    features, tracks, confidence = some()
    file = write_nwb(tmp_path / "r" / "m.nwb", features, tracks, confidence)
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    (tmp_path / "other").mkdir()
    with pynwb.NWBHDF5IO(str(tmp_path / "other" / "e.nwb"), "w") as stream:
        stream.write(pynwb.NWBFile("test", "ephys", start))
    with pytest.raises(DataError, match="e.nwb .NWB file: no PoseEstimation"):
        load(tmp_path / "other", "auto")
    with pytest.raises(DataError, match="e.nwb holds no PoseEstimation"):
        READERS["nwb"].read([tmp_path / "other" / "e.nwb"])
    monkeypatch.setitem(sys.modules, "ndx_pose", None)
    with pytest.raises(DataError, match=r"m.nwb is an NWB file, .*pip install 'lisbet\[nwb\]'"):
        load(tmp_path / "r", "auto")
    assert READERS["nwb"].recognise(Peek(file)).usable  # which needs no package


# MARS and CalMS21 ------------------------------------------------------------------------------


def test_poses_of_mars(tmp_path):
    features, tracks, confidence = some(features=MICE)
    tracks, confidence = np.nan_to_num(tracks, nan=5.0), np.nan_to_num(confidence, nan=0.1)
    file = write_json(tmp_path / "r" / "m1_pose_top_v1_8.json",
                      {**mars(tracks, confidence), "bbox": []})  # fmt: skip
    record = contracts.check_recording_reader(READERS["mars"], [file])
    require_same(record, features, tracks, confidence)
    (found,) = load(tmp_path, "auto", data_scale="100x100")
    require_same(found, features, tracks / 100)
    file.write_text(file.read_text()[:3000])
    with pytest.raises(DataError, match="m1_pose_top_v1_8.json is no JSON, or is cut off"):
        load(tmp_path, "auto")
    write_json(file, {"keypoints": np.zeros((4, 2, 2, 11)).tolist(), "scores": []})
    with pytest.raises(DataError, match=r"keypoints have shape \(4, 2, 2, 11\)"):
        load(tmp_path, "auto")


def calms21_file(file, lengths=(FRAMES, 30), *, annotated=True):
    """A file of CalMS21; return what is in it by sequence."""
    content, expected = {}, {}
    for number, frames in enumerate(lengths):
        _, tracks, confidence = some(frames, features=MICE, seed=number)
        tracks, confidence = np.nan_to_num(tracks, nan=5.0), np.nan_to_num(confidence, nan=0.1)
        own = mars(tracks, confidence)
        labels = np.arange(frames) // 7 % 3
        if annotated:
            own |= {"annotations": labels.tolist(),
                    "metadata": {"vocab": {"other": 2, "attack": 0, "mount": 1}}}  # fmt: skip
        content[f"task1/train/mouse{number}"] = own
        expected[f"task1/train/mouse{number}"] = (tracks, confidence, labels)
    write_json(file, {"annotator-id_0": content})
    return expected


@pytest.mark.parametrize("as_folder", [True, False])
@pytest.mark.parametrize("format", ["auto", "calms21"])
def test_a_dataset_of_calms21(tmp_path, format, as_folder):
    file = tmp_path / "d" / "calms21_task1_train.json"
    expected = calms21_file(file)
    path = file.parent if as_folder else file
    assert len(contracts.check_dataset_reader(READERS["calms21"], path)) == 2
    records = load_records(Dataset(path=path, format=format, annotations="movement"),
                           DataOptions())  # fmt: skip
    assert [record.id for record in records] == sorted(expected)
    for record in records:
        tracks, _, labels = expected[record.id]
        require_same(record, MICE, tracks / (1024, 570))
        assert record.fps == 30
        assert record.labels.behaviors == ("attack", "mount", "other")
        np.testing.assert_array_equal(record.labels.active.argmax(axis=1), labels)


def test_options_of_preparation_apply_to_calms21(tmp_path):
    file = tmp_path / "calms21_task1_train.json"
    expected = calms21_file(file)
    dataset = Dataset(path=file, format="auto")
    (record,) = load_records(dataset, DataOptions(
        select_coords="intruder;x,y;tail,nose", data_scale="200x100", min_confidence=0.5,
        data_filter="mouse1"))  # fmt: skip
    tracks, confidence, _ = expected["task1/train/mouse1"]
    chosen = tracks[:, [1]][:, :, [6, 0]] / (200, 100)
    chosen[confidence[:, [1]][:, :, [6, 0]] < 0.5] = np.nan
    np.testing.assert_allclose(record.position, chosen, atol=1e-6)
    for options, message in (
        ({"fps": 25}, "states 30 frames per second, but --fps is 25"),
        ({"flat": True}, "--flat cannot apply"),
        ({"data_filter": "mouse9"}, "none of the 2 recordings"),
        ({"data_scale": "20x20"}, "2 of 2 recordings"),
    ):
        with pytest.raises(DataError, match=message):
            load_records(dataset, DataOptions(**options))


def test_calms21_that_cannot_be_read(tmp_path):
    file = tmp_path / "calms21_task1_test.json"
    calms21_file(file, annotated=False)
    annotated = Dataset(path=file, format="auto", annotations="movement")
    with pytest.raises(DataError, match="mouse0: no key 'annotations'"):
        load_records(annotated, DataOptions())
    file.write_text(file.read_text()[:-100])
    with pytest.raises(DataError, match="calms21_task1_test.json .*cut off"):
        load_records(Dataset(path=file, format="calms21"), DataOptions())
    write_json(file, {"a": {"mouse1": {"keypoints": [], "scores": []}}})
    with pytest.raises(DataError, match="calms21_task1_test.json.*mouse1"):
        load_records(Dataset(path=file, format="calms21"), DataOptions())
    write_recording(tmp_path / "r", walk(9, names(), 0), names())
    (record,) = load(tmp_path, "auto")  # a folder with recordings in it is a folder of recordings
    assert record.id == "r"


def test_calms21_is_described_and_not_converted(tmp_path, capsys):
    from lisbet.cli import main

    file = tmp_path / "calms21_task1_train.json"
    calms21_file(file)
    main(["dataset_info", str(file)])
    said = capsys.readouterr().out
    assert "2 recordings, 54 frames" in said
    assert "0 bytes" not in said
    with pytest.raises(SystemExit):
        main(["convert_dataset", str(file), str(tmp_path / "d.zarr")])
    assert "fetch_dataset" in capsys.readouterr().err
    assert not (tmp_path / "d.zarr").exists()


# All of them -----------------------------------------------------------------------------------


def write_movement(file, features, tracks, confidence):
    write_recording(file.parent, tracks, features, name=file.name)


def write_dlc_table(file, features, tracks, confidence):
    write_dlc(file, tracks, features, multi=True)


def write_analysis(file, features, tracks, confidence):
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as root:
        root["tracks"] = tracks.transpose(1, 3, 2, 0)
        root["node_names"] = list(features.keypoints)
        root["track_names"] = list(features.individuals)


def write_mars(file, features, tracks, confidence):
    write_json(file, mars(tracks, confidence))


WRITERS = {
    "anipose": ("csv", write_anipose, {"individuals": 1, "space": 3}),
    "dlc": ("csv", write_dlc_table, {}),
    "lightningpose": ("csv", write_lightning_pose, {"individuals": 1}),
    "mars": ("json", write_mars, {"features": MICE}),
    "movement": ("nc", write_movement, {}),
    "nwb": ("nwb", write_nwb, {}),
    "sleap": ("h5", write_analysis, {}),
    "sleap project": ("slp", write_slp, {}),
}


@pytest.mark.parametrize("format", WRITERS)
def test_every_format_is_recognised_and_read_back(tmp_path, format):
    """Random recordings come back through --data_format=auto, and no other reader takes them."""
    ending, write, shape = WRITERS[format]
    expected = {}
    for seed in range(3):
        more = {} if "features" in shape else {"keypoints": 2 + seed}
        features, tracks, confidence = some(FRAMES + seed, seed=seed, **more, **shape)
        if format == "mars":
            tracks, confidence = np.nan_to_num(tracks, nan=5.0), np.nan_to_num(confidence, nan=0.1)
        name = f"m{seed}_pose_top_v1.json" if ending == "json" else f"m{seed}.{ending}"
        file = tmp_path / f"r{seed}" / name
        write(file, features, tracks, confidence)
        own, kind = format_of(Peek(file))
        assert (own, kind.usable) == (format.split()[0], True)
        if len(features.individuals) == 1:
            features = features.model_copy(update={"individuals": ("individual_0",)})
        (source,) = find_sources(Dataset(path=file.parent, format="auto"))
        expected[source.id] = (features, tracks)
        require_same(read("auto", file), features, tracks)
        for other, reader in READERS.items():
            if other in (own, "auto") or not hasattr(reader, "recognise"):
                continue
            if (other, own) == ("dlc", "lightningpose"):  # the same layout
                continue
            with pytest.raises((DataError, OSError, ValueError, ConfigError)):
                from_dataset("r", file, reader.read([file]))
    assert len(expected) == 3


@pytest.mark.parametrize("format", [name for name in WRITERS if name != "movement"])
def test_files_that_are_cut_off(tmp_path, format):
    """Cut anywhere, a file is refused by name, unless all of its frames are there."""
    ending, write, shape = WRITERS[format]
    features, tracks, confidence = some(**shape)
    if format == "mars":
        tracks, confidence = np.nan_to_num(tracks, nan=5.0), np.nan_to_num(confidence, nan=0.1)
    file = tmp_path / "r" / f"m_tracking_pose_top.{ending}"
    write(file, features, tracks, confidence)
    whole = file.read_bytes()
    for share in (0, 0.05, 0.4, 0.8, 0.97):
        cut = int(len(whole) * share)
        if ending == "csv" and share:  # within a line: at its end nothing can be told
            cut = whole.rfind(b"\n", 0, cut) + 8
        file.write_bytes(whole[:cut])
        with pytest.raises(DataError) as caught:
            load(tmp_path, "auto")
        assert file.name in str(caught.value) or "holds no recordings" in str(caught.value)
