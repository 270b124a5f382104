"""What is held out: recordings by share or by name, or the last part of each recording."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, names, walk, write_recording

from lisbet.cli import main, parse
from lisbet.core.errors import ConfigError, LisbetError
from lisbet.core.yaml_files import read_yaml
from lisbet.training.checkpoint.resume import require_same_run
from lisbet.training.inputs import TrainingInputs
from lisbet.training.logging import pictures

LINE = ["train_model", *TINY, "--data_scale=100x100", "--annot_format=csv_events"]
LENGTHS = {"r0": 50, "r1": 80, "r2": 30}
ENDS = {"r0": 38, "r1": 60, "r2": 22}
"""Frames before the held-out part with --dev_ratio=0.25: 50 - round(12.5), 80 - 20, 30 - round(7.5)
(halves are rounded to even numbers)."""
TIME = ("--dev_ratio=0.25", "--dev_split=time")


def write(folder: Path, changed: str = "") -> Path:
    """Write three annotated recordings; "train" or "dev" of each may hold other tracks."""
    for number, (name, length) in enumerate(LENGTHS.items()):
        tracks = walk(length, names(), number)
        own = {"train": slice(0, ENDS[name]), "dev": slice(ENDS[name], length)}
        if changed:
            tracks[own[changed]] = 100 - tracks[own[changed]]
        write_recording(folder / name, tracks, names())
        rows = f"run,{5 / 30},{8 / 30}\nrun,{(length - 3) / 30},{(length - 1) / 30}\n"
        (folder / name / "annotations.csv").write_text(f"behavior,start_time,end_time\n{rows}")
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "data")


def setup_of(*words: str, data: object = "data") -> TrainingInputs:
    return TrainingInputs.from_options(
        parse([*LINE, *words, str(data)]).options, torch.device("cpu")
    )


def batches(setup: TrainingInputs, part: str) -> list[torch.Tensor]:
    sampler = getattr(setup, part)
    drawn = [sampler.batch(0, step, slice(0, 16)) for step in range(4)]
    return [tensor for batch in drawn for pair in batch.values() for tensor in pair]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("words", [[], ["--window_offset=5", "--fps_scaling=1.5"]])
def test_no_window_reaches_from_one_part_into_the_other(words, data, tmp_path):
    words = [*words, *TIME, "--task_ids=cons,order,shift,warp,multilabel",
             "--set=order.negatives=simple"]  # fmt: skip
    plain = setup_of(*words)
    for changed, kept in (("dev", "train"), ("train", "dev")):
        other = setup_of(*words, data=write(tmp_path / f"other_{changed}", changed))
        assert equal(batches(plain, kept), batches(other, kept))
        assert not equal(batches(plain, changed), batches(other, changed))


def test_the_parts_of_a_recording(data):
    setup = setup_of(*TIME, "--task_ids=multilabel,warp")
    train, dev = setup.train.banks["multilabel"], setup.dev.banks["multilabel"]
    assert train.ids == dev.ids == ("r0", "r1", "r2")
    assert train.lengths.tolist() == list(ENDS.values())
    assert dev.lengths.tolist() == [12, 20, 8]
    run = np.zeros(12, bool)
    run[9:11] = True  # frames 47 and 48 of 50
    assert (dev.labels[dev.recording(0)][:, 0] == run).all()
    assert train.active().sum() == 9


def test_parts_of_a_converted_dataset(data):
    """In memory, and in blocks that are read in turn: the same frames of the same recordings."""
    main(["convert_dataset", "--workers=1", "--data_scale=100x100", "data", "data.zarr"])
    words = [*TIME, "--task_ids=order", "--window_offset=5"]
    plain = setup_of(*words)
    line = [*LINE[:-2], "--data_format=zarr", *words, "data.zarr"]
    setups = [
        TrainingInputs.from_options(parse([*line, *more]).options, torch.device("cpu"))
        for more in ([], ["--bank_memory=45KB"])
    ]
    assert equal(batches(setups[0], "train"), batches(plain, "train"))
    assert equal(batches(setups[0], "dev"), batches(plain, "dev"))
    assert len({setup.loaded.fingerprint() for setup in setups}) == 1
    for part in ("train", "dev"):
        whole = getattr(plain, part).banks["order"]
        found = getattr(setups[1], part).bank("order", 0, 0)
        for number, record in enumerate(found.ids):
            rows, own = found.recording(number), whole.recording(whole.ids.index(record))
            assert torch.equal(found.tracks[rows], whole.tracks[own])
            assert not found.tracks[[rows.start - 1, rows.stop]].any()
        drawn = []
        for setup in setups:  # as for a picture
            sampler = getattr(setup, part)
            bank = sampler.banks["order"]
            drawn.append([*pictures.windows_of(setup, bank, sampler, *pictures._spread(bank))])
        assert equal(*drawn)


def test_a_run_of_an_earlier_release_is_resumed(data):
    """Its run_config.yml lacks newer options, which had their defaults."""
    options = parse([*LINE, "data"]).options.model_dump(mode="json")
    older = {name: value for name, value in options.items() if not name.startswith("dev_")}
    of_data = {"data": {"fingerprint": "0"}, "versions": {}}
    require_same_run({"options": older} | of_data, {"options": options} | of_data, data)
    options["dev_split"] = "time"
    with pytest.raises(ConfigError, match="--dev_split: was 'recordings', is 'time'"):
        require_same_run({"options": older} | of_data, {"options": options} | of_data, data)


def test_a_run_with_held_out_parts(data, capsys):
    main([*LINE, *TIME, "--task_ids=cons,multiclass", "--run_id=a", "--epochs=1",
          "--train_sample=0.1", "--save_weights=best", "data"])  # fmt: skip
    said = capsys.readouterr().err
    assert said.count("is not larger than --warmup_epochs=5") == 1
    assert "to 21% of" in said  # 0.01 + 0.99 / 5
    known = read_yaml(Path("models/a/run_config.yml"))["data"]
    assert known["split"] == {"train": [*LENGTHS], "dev": [*LENGTHS]}
    assert known["split_frames"] == {
        "train": {name: [0, end] for name, end in ENDS.items()},
        "dev": {name: [end, LENGTHS[name]] for name, end in ENDS.items()},
    }
    assert "the last part is held out" in Path("models/a/README.md").read_text()
    whole = setup_of("--task_ids=cons,multiclass").loaded.fingerprint()
    assert known["fingerprint"] == whole
    for words in (["--dev_ratio=0.25"], ["--dev_recordings=r0"]):
        with pytest.raises(SystemExit):
            main([*LINE, "--task_ids=order,multiclass", "--run_id=a", "--resume", "--epochs=2",
                  *words, "data"])  # fmt: skip
        assert "--dev_split: was 'time', is 'recordings'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "held_out"),
    [("r1", {"r1"}), ("r2,r0", {"r0", "r2"}), ("r[12]", {"r1", "r2"}), ("*0", {"r0"})],
)
def test_recordings_are_held_out_by_name(words, held_out, data):
    setup = setup_of(f"--dev_recordings={words}", "--task_ids=order")
    assert set(setup.dev.banks["order"].ids) == held_out
    assert set(setup.train.banks["order"].ids) == LENGTHS.keys() - held_out


def test_names_of_several_datasets(data, tmp_path):
    write(tmp_path / "more")
    setup = setup_of("--dev_recordings=more/*,data/r1", "--task_ids=order", data="data,more")
    assert set(setup.dev.banks["order"].ids) == {"data/r1", "more/r0", "more/r1", "more/r2"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dev_recordings=r1,r7"], "no recording has the id 'r7'.*The ids are: r0, r1, r2"),
        (["--dev_recordings=*"], "holds out all 3 recordings and leaves none to train on"),
        (["--dev_recordings=r1", "--dev_ratio=0.5"], "--dev_ratio would choose it"),
        (["--dev_recordings=r1", "--dev_split=time"], "--dev_split=time would choose it"),
        (["--dev_split=time"], "--dev_split=time needs --dev_ratio"),
        (["--dev_split=time", "--dev_ratio=1"], r"none to train on of the frames of r0 \(50\), r1"),
        (["--dev_ratio=0.2"], re.escape(
            "task 'cons' needs 2 recordings in each part; you have 2 + 1 (train part + dev part). "
            "Use --task_ids=order,shift,warp, drop --dev_ratio, hold out the last part of each "
            "recording with --dev_split=time, or add recordings")),
    ],
)  # fmt: skip
def test_what_cannot_be_held_out(words, said, data):
    with pytest.raises(LisbetError, match=said):
        setup_of(*words)


TASK_SETS = ("cons", "order", "cons,order,shift,warp", "cons,multiclass", "multilabel,shift")
SPLITS = ((), ("--dev_ratio=0.2",), ("--dev_ratio=0.5",), ("--dev_ratio=0.9",), TIME,
          ("--dev_recordings=r0",), ("--dev_recordings=r0,r2",))  # fmt: skip


@pytest.mark.parametrize("tasks", TASK_SETS)
def test_tasks_and_splits_of_three_recordings_work_or_are_told_what_does(tasks, data):
    for split in SPLITS:
        try:
            setup_of(*split, f"--task_ids={tasks}")
        except LisbetError as error:
            ways = proposals(str(error), split, tasks)
            assert ways, str(error)
            for words in ways:
                setup_of(*words)


def test_a_single_recording(data):
    for words, said in (
        (["--task_ids=cons,order"], r"needs 2 recordings, but there is only 1 \(r1\)\. "
                                    "Use --task_ids=order, or add recordings"),
        (["--task_ids=order", "--dev_ratio=0.2"], "with --dev_split=time --dev_ratio=0.2"),
    ):  # fmt: skip
        with pytest.raises(LisbetError, match=said):
            setup_of(*words, "--data_filter=r1")
    setup_of("--task_ids=order", *TIME, "--data_filter=r1")


def proposals(said: str, split: tuple[str, ...], tasks: str) -> list[list[str]]:
    """Return the options that a message proposes, each in place of those that failed."""
    found = []
    own = f"--task_ids={tasks}"
    if way := re.search(r"Use (--task_ids=[\w,]*\w)", said):
        found.append([*split, way[1]])
    if re.search("drop --dev_(ratio|recordings)", said):
        found.append([own])
    if "--dev_split=time" in said:
        ratio = re.search(r"--dev_split=time (--dev_ratio=[\d.]*\d)", said)
        found.append([own, "--dev_split=time", ratio[1] if ratio else split[0]])
    return found
