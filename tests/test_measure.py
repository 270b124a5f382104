"""What a run is estimated to take, and what a machine is measured to do."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY

from lisbet.cli import main, parse
from lisbet.commands.machine.estimate import duration, estimate_of, number, size
from lisbet.commands.machine.scaling import advice, filled_from
from lisbet.training.inputs import TrainingInputs
from lisbet.training.measure import _resized, cost_of, flop_of
from lisbet.training.run_folder import with_run_id


@pytest.fixture
def here(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def estimated(processes, *words):
    options = parse(["estimate", *words, "data"]).options
    return estimate_of(options, inputs_of(*words), processes, options.batch_size)


def refused(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    return capsys.readouterr().err


def inputs_of(*words):
    options = with_run_id(parse(["estimate", *words, "data"]).options)
    return TrainingInputs.from_options(options, torch.device("cpu"))


def test_operations_of_a_transformer_by_hand(here):
    """Each matrix product of the forward pass is two in backward; the first needs no input's."""
    width, hidden, layers, frames = 32, 128, 3, 40
    inputs = inputs_of(
        f"--emb_dim={width}", f"--hidden_dim={hidden}", f"--num_layers={layers}",
        "--num_heads=4", f"--window_size={frames}",
    )  # fmt: skip
    features = 2 * 3 * 2  # of the fixture: individuals, keypoints, axes
    assert inputs.config.input_features.size == features
    projections = 4 * width * width  # query, key, value and output
    layer = frames * (2 * projections + 2 * 2 * width * hidden) + 2 * 2 * frames * frames * width
    expected = 3 * layers * layer + 2 * (2 * frames * features * width)
    assert flop_of(inputs) == pytest.approx(expected, rel=0.01)  # and the heads


@pytest.mark.parametrize("preset", ["lstm-base", "tcn-base"])
def test_operations_of_other_backbones_are_counted(here, preset):
    inputs = inputs_of(f"--backbone_preset={preset}", "--window_size=12")
    # Each weight of a layer is multiplied once for each frame, at least, in forward and backward.
    assert flop_of(inputs) > 12 * 3 * cost_of(inputs).parameters


def test_a_run_is_as_it_was_estimated(here, capsys):
    words = ["--emb_dim=96", "--num_layers=2", "--num_heads=2", "--window_size=12", "--epochs=2",
             "--dev_ratio=0.4", "--batch_size=50", "--checkpoint_every=1ep"]  # fmt: skip
    found = estimated(1, *words)
    main(["train_model", *words, "--run_id=a", "data"])
    (checkpoint,) = Path("models/a/checkpoints").glob(f"step_{found.steps:08}")
    bytes_of = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    assert bytes_of == pytest.approx(found.checkpoint, rel=0.15)
    weights = Path("models/a/weights/weights_last.pt")
    assert weights.stat().st_size == pytest.approx(found.weights, rel=0.05)
    loaded = torch.load(weights, weights_only=True)
    assert sum(values.numel() for values in loaded.values()) == found.cost.parameters


def test_the_command_estimates_and_writes_nothing(here, capsys):
    before = sorted(here.rglob("*"))
    main(["estimate", *TINY, "--seconds=0.05", "--epochs=3", "--dev_ratio=0.4", "--run_id=a",
          "data"])  # fmt: skip
    said = capsys.readouterr().out
    rate = float(re.search(r"rate: +([\d,]+) windows/s, measured here", said)[1].replace(",", ""))
    assert rate > 0
    assert "It divides among 1, 2, 4, 8, 16 devices." in said
    assert re.search(r"This CPU is (not )?filled (from|by) \d+ windows of each task", said)
    assert sorted(here.rglob("*")) == before


def test_an_existing_run_can_be_estimated(here, capsys):
    main(["train_model", *TINY, "--epochs=1", "--run_id=a", "data"])
    main(["estimate", *TINY, "--rate=10", "--epochs=1", "--run_id=a", "data"])
    assert "as --rate says" in capsys.readouterr().out


def test_more_processes_take_less_time_and_memory(here):
    words = [*TINY, "--launch=fsdp", "--num_processes=4"]
    one, four = estimated(1, *words), estimated(4, *words)
    assert four.seconds(10) == one.seconds(10) / 4
    assert four.state == one.state // 4
    assert four.activations == one.activations // 4
    assert one.seconds(10) == pytest.approx(one.windows / 10)


def test_what_cannot_be_estimated(here, capsys):
    assert "--num_processes" in refused(capsys, "estimate", "--launch=ddp", "data")
    assert "does not divide" in refused(
        capsys, "estimate", *TINY, "--launch=ddp", "--num_processes=3", "data"
    )
    assert "--rate=0: expected more than 0" in refused(capsys, "estimate", "--rate=0", "data")
    assert "nowhere" in refused(capsys, "estimate", *TINY, "nowhere")


def test_numbers_as_text():
    assert [number(value) for value in (0, 12, 1.5e3, 2.5e13)] == ["0 ", "12 ", "1.5 k", "25 T"]
    assert [size(value) for value in (2**19, 3 * 2**30)] == ["0.5 MB", "3.0 GB"]
    assert [duration(value) for value in (5, 600, 9000)] == [
        "5 seconds",
        "10 minutes",
        "2 h 30 min",
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_benchmark(tmp_path, processes):
    """Simulated recordings; on two processes, all take part."""
    launch = ["--launch=ddp", "--num_processes=2"] if processes == 2 else []
    done = subprocess.run(
        [sys.executable, "-m", "lisbet", "benchmark", *TINY, "--seconds=0.05", *launch],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for part in ("sampling", "forward pass", "forward, backward and optimizer", "training step"):
        assert float(re.search(rf"^{part} +([\d.]+) ms", done.stdout, re.M)[1]) > 0
    last = done.stdout.strip().splitlines()[-1]
    assert ("2 processes" in last) == (processes == 2)
    assert re.search(r": [\d,]+ windows/s, [\d.]+ [kMGT]?FLOP/s, [\d.]+% of the matrix prod", last)
    assert not list(tmp_path.iterdir())


def test_a_batch_script_asks_for_the_estimated_time(here, capsys):
    words = ["slurm_script", *TINY, "--run_id=a", "--gpus_per_node=0"]
    found = estimated(1, *TINY)
    main([*words, f"--rate={found.windows / 3500}", "data"])
    said = capsys.readouterr()
    assert "#SBATCH --time=01:43:00" in said.out  # 1.5 · 3500 s, and 15 minutes
    assert re.search(r"--mem=\d+G is estimated", said.err)
    main([*words, "--rate=1", "--time=00:10:00", "data"])
    assert "#SBATCH --time=00:10:00" in capsys.readouterr().out
    main([*words, "data"])
    said = capsys.readouterr()
    assert "#SBATCH --time=04:00:00" in said.out
    assert "--rate=WINDOWS_PER_SECOND" in said.err


def test_from_which_batch_a_device_is_filled():
    """The smallest one with 90 percent of the highest rate."""
    assert filled_from({8: 100, 16: 190, 32: 250, 64: 270, 128: 300, 256: 299, 512: 295}) == 64
    assert filled_from({8: 100, 16: 195, 32: 390}) is None  # still growing
    assert filled_from({8: 100, 16: 101, 32: 99}) == 8


def test_advice_for_several_devices():
    """A batch 4 times as large: twice the learning rate by the square-root rule, 4 times by the
    linear one."""
    rates = {8: 500.0, 16: 900.0, 32: 1000.0, 64: 1000.0}
    text = advice(64, 1, 1e-4, rates, "CPU")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()
            if re.match(r" +\d+ +\d+ +[\d.]", line)}  # fmt: skip
    assert rows["4"] == ["256", "0.0002", "0.0004"]
    assert rows["2"] == ["128", "0.000141", "0.0002"]
    assert "divides among 1, 2, 4, 8, 16, 32, 64 devices" in text
    assert "filled from 16 windows of each task on: 90% of its highest rate, 1,000" in text
    text = advice(64, 8, 1e-4, rates, "NVIDIA")
    assert "8 windows of each task on each of 8 devices" in text
    assert "With 8 on each device they are not filled" in text
    assert re.search(r"^ +16 +128 +0.000141 +0.0002$", text, re.M)
    assert "not measured, as --rate is given" in advice(64, 8, 1e-4, {}, "CPU")


def test_windows_are_repeated_for_a_larger_batch():
    windows, labels = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 2])
    ((found, classes),) = _resized({"cons": (windows, labels)}, 3, 7).values()
    assert classes.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found[:, 0].tolist() == [0, 2, 4, 0, 2, 4, 0]
    ((found, _),) = _resized({"cons": (windows, labels)}, 3, 2).values()
    assert found.shape == (2, 2)
