"""The bank that moves: which recordings are there at a step, and what is drawn from them."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, betman, names, walk, write_dataset

from lisbet.cli import main
from lisbet.core.config import Window
from lisbet.core.errors import DataError
from lisbet.data.bank import Bank, WindowIndex, gather
from lisbet.data.record import Record
from lisbet.data.streaming_bank import AHEAD, StreamingBank
from lisbet.training.checkpoint.directory import CheckpointDirectory

FEATURES = names()
ROW = FEATURES.size * 4


def recordings(lengths: list[int]) -> list[Record]:
    return [
        Record.in_memory(f"r{n:03}", (walk(length, FEATURES, n) / 100).astype(np.float32), FEATURES)
        for n, length in enumerate(lengths)
    ]


def moving(lengths: list[int], memory: int, *, part: str = "train", steps: int = 100, batch=8):
    records = recordings(lengths)
    return StreamingBank.over(
        Bank.outline(records), records, memory=memory, seed=3, part=part, batch_size=batch,
        steps=steps, device=torch.device("cpu"),
    )  # fmt: skip


LENGTHS = [40 + 7 * (n % 5) for n in range(60)]
MEMORY = 1000 * ROW


def test_windows_are_those_of_the_whole_bank():
    whole = Bank.from_records(recordings(LENGTHS))
    numbers = {record_id: number for number, record_id in enumerate(whole.ids)}
    bank, window = moving(LENGTHS, MEMORY), Window(size=12, offset=2)
    rng = np.random.default_rng(0)
    for step in range(0, 400, 13):
        here = bank.at(0, step, 100)
        record, frame = here.draw(rng.random(50))
        known = np.array([numbers[here.ids[number]] for number in record])
        expected = gather(whole, WindowIndex.plain(known, frame), window)
        torch.testing.assert_close(gather(here, WindowIndex.plain(record, frame), window), expected,
                                   rtol=0, atol=0)  # fmt: skip


def test_memory_is_kept_and_every_recording_comes_up():
    bank = moving(LENGTHS, MEMORY)
    seen: dict[str, int] = {}
    for step in range(100):
        here = bank.at(0, step, 100)
        assert here.tracks.numel() * 4 <= MEMORY
        assert len(bank.tracks_at.reading) <= AHEAD
        assert len(set(here.ids)) == len(here.ids)
        assert 0 < here.frames < bank.frames
        for record_id in here.ids:
            seen[record_id] = seen.get(record_id, 0) + 1
    assert len(seen) == len(LENGTHS)


def test_what_is_there_follows_from_seed_and_step():
    """However a run came to a step: on its way, at once, or going back."""
    on_the_way = moving(LENGTHS, MEMORY)
    ids = [on_the_way.at(epoch, step, 50).ids for epoch in range(3) for step in range(50)]
    assert len(set(ids)) > 20
    for number in (149, 20, 77, 78, 0):
        at_once = moving(LENGTHS, MEMORY, steps=100)
        assert at_once.at(*divmod(number, 50), 50).ids == ids[number]
        assert on_the_way.at(*divmod(number, 50), 50).ids == ids[number]


def test_held_out_recordings_pass_alike_in_every_evaluation():
    bank = moving(LENGTHS, MEMORY, part="dev", steps=40)
    first, again = ([bank.at(epoch, step, 40).ids for step in range(40)] for epoch in (0, 3))
    assert first == again
    counts = np.zeros(len(LENGTHS))
    for ids in first:
        counts[[int(record_id[1:]) for record_id in ids]] += 1
    assert counts.min() > 0


def test_all_blocks_stay_where_all_fit():
    """The order of the next pass must not push one out: some tasks need two recordings."""
    bank = moving([300, 300], 3000 * ROW, steps=40)
    assert len(bank.tracks_at.blocks) == bank.tracks_at.order.resident == 2
    for lengths in ([300] * 2, [60] * 9, [60] * 12):
        bank = moving(lengths, 10 * max(lengths) * ROW, steps=40)
        assert all(len(bank.at(e, step, 40)) >= 2 for e in range(5) for step in range(40))


def test_a_pass_is_even():
    """Over several passes, frames are drawn about as often as one another."""
    bank = moving(LENGTHS, MEMORY, steps=200)
    expected = np.zeros(len(LENGTHS))
    for epoch in range(20):
        for step in range(0, 200, 5):
            here = bank.at(epoch, step, 200)
            expected[[int(record_id[1:]) for record_id in here.ids]] += 1 / here.frames
    share = expected / expected.mean()
    assert 0.75 < share.min() < 1 < share.max() < 1.3


def test_few_frames_of_an_epoch_do_not_read_all_of_them():
    fast, slow = (moving(LENGTHS, MEMORY, steps=steps) for steps in (1, 1000))
    read = len(fast.tracks_at.blocks) / fast.tracks_at.order.pace
    assert read * np.mean(LENGTHS) <= 20 * 8 * len(LENGTHS)
    assert slow.tracks_at.order.pace == pytest.approx(1000 / len(slow.tracks_at.blocks))


def test_a_recording_that_does_not_fit():
    with pytest.raises(DataError, match="r001 has 900 frames, of which 6 times as many.*=1MB"):
        moving([40, 900, 40], 2000 * ROW)


def test_threads_end(recwarn):
    before = threading.active_count()
    bank = moving(LENGTHS, MEMORY)
    bank.at(0, 50, 100)
    bank.tracks_at.close()
    assert threading.active_count() == before


# Training ---------------------------------------------------------------------------------------

LINE = ["train_model", *TINY, "--epochs=3", "--warmup_epochs=0", "--hash_samples",
        "--dev_ratio=0.3", "--save_history", "--checkpoint_every=7steps", "--data_format=zarr",
        "--bank_memory=48KB"]  # fmt: skip
LEFT = ("sample_hashes.csv", "training_history.csv")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A run on parts of a stored dataset, from its beginning to its end."""
    place = tmp_path_factory.mktemp("stream")
    write_dataset(place / "data", [60 + n for n in range(20)])
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        main(["convert_dataset", "--workers=1", "data", "data.zarr"])
        main([*LINE, "--run_id=whole", "data.zarr"])
    return place


def test_a_run_says_what_is_where(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    main([*LINE, "--run_id=dry", "--dry_run", "-v", "data.zarr"])
    assert "blocks in memory, a new one every" in capsys.readouterr().out
    assert "bank_memory: 48KB" in Path("models/whole/run_config.yml").read_text()


def test_two_processes_draw_the_same(place):
    done = betman(*LINE, "--launch=ddp", "--num_processes=2", "--run_id=two", "data.zarr",
                  cwd=place)  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole, two = (place / "models" / run / LEFT[0] for run in ("whole", "two"))
    assert whole.read_bytes() == two.read_bytes()


def test_an_interrupted_run_goes_on(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "models", "models")
    Path("data.zarr").symlink_to(place / "data.zarr")
    newest, *_ = CheckpointDirectory(Path("models/whole")).published()
    shutil.rmtree(newest)
    for name in (*LEFT, "weights/weights_last.pt"):
        Path("models/whole", name).unlink()
    main([*LINE, "--run_id=whole", "--resume", "data.zarr"])
    for name in (*LEFT, "weights/weights_last.pt"):
        ours, theirs = (run / "models" / "whole" / name for run in (tmp_path, place))
        assert ours.read_bytes() == theirs.read_bytes()
    with pytest.raises(SystemExit):
        main([*LINE[:-1], "--bank_memory=all", "--run_id=whole", "--resume", "data.zarr"])
    assert "--bank_memory: was '48KB', is 'all'" in capsys.readouterr().err


def test_a_store_that_vanishes_ends_the_run(place, tmp_path, monkeypatch, capsys):
    from lisbet.training.trainer import Trainer

    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "data.zarr", "data.zarr")
    train_step = Trainer.train_step

    def vanish(self):
        if self.step == 8:
            shutil.rmtree("data.zarr")
        train_step(self)

    monkeypatch.setattr(Trainer, "train_step", vanish)
    with pytest.raises(SystemExit) as caught:
        main([*LINE, "--run_id=gone", "data.zarr"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "data.zarr: frames" in said
    assert "cannot be read" in said
    assert "Traceback" not in said
    assert CheckpointDirectory(Path("models/gone")).published()
