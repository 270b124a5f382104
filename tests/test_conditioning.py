"""--condition_input: training on scaled features, weights for plain ones; and --preset."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, betman, weight_changes, write_dataset

from lisbet.cli import main
from lisbet.cli.commands import COMMANDS
from lisbet.core.errors import LisbetError
from lisbet.models import model_dir
from lisbet.models.multitask import MultiTaskModel
from lisbet.options import TrainOptions
from lisbet.training.conditioning import Conditioning, contrasts
from lisbet.training.datasets.sampler import EXAMPLES
from lisbet.training.evaluate import forward
from lisbet.training.inputs import TrainingInputs

WEIGHTS = "weights/weights_last.pt"
PLAIN = ["train_model", *TINY, "--condition_input", "--set",
         "kinematics.front=point0,kinematics.back=point2",
         "--data_augmentation=rotation:mode=none", "data"]  # fmt: skip
RUN = [*PLAIN, "--task_ids=kinematics,cons", "--learning_rate=1e-3", "--embedding_noise=0.5"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", [150, 130])
    return tmp_path


def inputs_of(**given):
    options = COMMANDS["train_model"].check({
        "data_path": "data", "window_size": "12", "emb_dim": "8", "num_heads": "2",
        "task_ids": "cons,warp", "run_id": "x", "condition_input": "true", **given,
    })  # fmt: skip
    assert isinstance(options, TrainOptions)
    return TrainingInputs.from_options(options, torch.device("cpu"))


def test_means_and_differences_get_unit_variance(place):
    inputs = inputs_of()
    conditioning = inputs.conditioning
    frames = []
    for step in range(EXAMPLES // 128):
        for windows, _ in inputs.train.batch(0, step % inputs.train.steps, slice(0, 128)).values():
            frames.append(conditioning.apply(windows).flatten(2)[:, ::8].flatten(0, 1))
    values = torch.cat(frames).double().numpy()
    np.testing.assert_allclose(values.mean(0), 0, atol=0.2)
    np.testing.assert_allclose(values.std(0), 1, atol=0.2)


@pytest.mark.parametrize("backbone", ["transformer-base", "lstm-base"])
def test_folded_weights_answer_as_the_network_that_was_trained(place, backbone):
    sizes = {"num_heads": None} if backbone == "lstm-base" else {}
    inputs = inputs_of(backbone_preset=backbone, **sizes)
    trained = MultiTaskModel(inputs.config).eval()
    plain = MultiTaskModel(inputs.config).eval()
    layer = trained.backbone.input_layer
    plain.load_state_dict(inputs.conditioning.folded_weights(trained.state_dict(), layer))
    batch = inputs.train.batch(0, 0, slice(0, 32))
    with torch.no_grad():
        expected, found = forward(trained, batch, inputs.conditioning), forward(plain, batch)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
    inputs.conditioning.unfold(plain)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(plain.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_a_state_reads_back_exactly(place):
    conditioning = inputs_of().conditioning
    again = Conditioning.from_state(yaml.safe_load(yaml.safe_dump(conditioning.state_dict())))
    assert again.shape == conditioning.shape
    assert torch.equal(again.std, conditioning.std)
    assert torch.equal(again.mean, conditioning.mean)


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 3, 2), (3, 4, 3)])
def test_coordinates_are_turned_into_means_and_differences(shape):
    turn = contrasts(shape)
    torch.testing.assert_close(turn @ turn.T, torch.eye(len(turn), dtype=torch.float64))
    individuals, _, space = shape
    same = torch.rand(1, 1, space).double().expand(shape).flatten()  # all points in one place
    assert (turn @ same)[space:].abs().sum() < 1e-11
    apart = torch.rand(individuals, 1, space).double().expand(shape).flatten()
    assert (turn @ apart)[individuals * space :].abs().sum() < 1e-11


def weights_of(run_id, file=WEIGHTS):
    return torch.load(f"models/{run_id}/{file}", weights_only=True)


def test_noise_of_embeddings_is_a_function_of_the_sample(place):
    for name in ("r0", "r1"):
        table = place / "data" / name / "annotations.csv"
        table.write_text("behavior,start_time,end_time\nrun,0,2\n")
    inputs = inputs_of(task_ids="cons,kinematics,multiclass", annot_format="csv_events", fps="30")
    whole = inputs.train.noise(1, range(2, 3), slice(0, 32), 0.5, 8)
    assert whole.keys() == {"cons", "kinematics"}  # not the supervised one
    parts = [
        inputs.train.noise(1, range(2, 3), rows, 0.5, 8) for rows in (slice(0, 5), slice(5, 32))
    ]
    for name, values in whole.items():
        assert torch.equal(values, torch.cat([part[name] for part in parts]))
        assert 0.4 < values.std() < 0.6
        assert not torch.equal(
            values, inputs.train.noise(1, range(3, 4), slice(0, 32), 0.5, 8)[name]
        )
    assert not torch.equal(whole["cons"], whole["kinematics"])
    assert inputs.train.noise(1, range(2, 3), slice(0, 32), 0.0, 8) is None
    model = MultiTaskModel(inputs.config).eval()
    batch = inputs.train.batch(1, 2, slice(0, 32))
    size = inputs.config.backbone_config.embedding_dim
    noise = inputs.train.noise(1, range(2, 3), slice(0, 32), 0.5, size)
    with torch.no_grad():
        found, plain = forward(model, batch, noise=noise), forward(model, batch)
        tokens = {name: model.backbone(windows.flatten(2)) for name, (windows, _) in batch.items()}
        cons = model.task_heads["cons"](tokens["cons"] + noise["cons"][:, None])
        middle = tokens["kinematics"][:, inputs.config.window.output_token]
        kinematics = model.task_heads["kinematics"](middle + noise["kinematics"])
    torch.testing.assert_close(found["cons"], cons)
    torch.testing.assert_close(found["kinematics"], kinematics)
    assert torch.equal(found["multiclass"], plain["multiclass"])


def test_an_interrupted_run_makes_the_same_model(place):
    main([*RUN, "--epochs=4", "--run_id=whole"])
    main([*RUN, "--epochs=2", "--run_id=parts"])
    main([*RUN, "--epochs=4", "--run_id=parts", "--resume"])
    for name, value in weights_of("whole").items():
        assert torch.equal(weights_of("parts")[name], value), name
    before = weights_of("whole")
    (place / "models/whole" / WEIGHTS).unlink()
    main(["consolidate_checkpoint", "models/whole"])
    for name, value in weights_of("whole").items():
        assert torch.equal(before[name], value), name


@pytest.mark.parametrize("launch", ["ddp", "fsdp", "deepspeed_zero2"])
def test_two_processes_make_the_same_model(place, launch):
    if launch.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    main([*RUN, "--epochs=1", "--run_id=one"])
    done = betman(*RUN, "--epochs=1", "--run_id=two", f"--launch={launch}", "--num_processes=2",
                  cwd=place, real=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, value, change in weight_changes(weights_of("one"), weights_of("two")):
        assert change.norm() <= 2e-3 * value.norm().clamp_min(1e-2), name


def test_a_model_is_trained_on_from_its_weights(place):
    main([*RUN, "--epochs=3", "--run_id=first"])
    start = ["--load_backbone_weights", f"models/first/{WEIGHTS}"]
    tiny = ["--task_ids=kinematics", "--learning_rate=1e-12", "--weight_decay=0", "--epochs=1"]
    main([*PLAIN, *tiny, *start, "--run_id=second"])
    for name, value in weights_of("first").items():
        if name.startswith("backbone."):
            found = weights_of("second")[name]
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-4 * value.abs().max())
    main([*PLAIN, *tiny, *start, "--run_id=frozen", "--freeze_backbone_weights"])
    for name, value in weights_of("first").items():
        if name.startswith("backbone."):
            assert torch.equal(weights_of("frozen")[name], value), name


def test_the_published_model_computes_what_was_trained(place):
    """The held-out loss of the last epoch, from the weights that were written."""
    main([*PLAIN, "--epochs=2", "--run_id=a", "--dev_recordings=r1", "--save_history",
          "--task_ids=kinematics"])  # fmt: skip
    row = (place / "models/a/training_history.csv").read_text().splitlines()
    history = dict(zip(row[0].split(","), row[-1].split(","), strict=True))
    given = yaml.safe_load((place / "models/a/run_config.yml").read_text())["options"]
    options = COMMANDS["train_model"].check(
        {"config": "models/a/run_config.yml", "run_id": "b", "condition_input": "false"}
    )
    assert given["condition_input"] is True
    inputs = TrainingInputs.from_options(options, torch.device("cpu"))
    model = MultiTaskModel(inputs.config).eval()
    model.load_state_dict(model_dir.read_weights(place / "models/a" / WEIGHTS))
    losses = []
    with torch.no_grad():
        for step in range(inputs.dev.steps):
            batch = inputs.dev.batch(0, step, slice(0, options.batch_size))
            logits = forward(model, batch)["kinematics"]
            losses.append(inputs.tasks["kinematics"].loss(logits, batch["kinematics"][1]).item())
    assert np.mean(losses) == pytest.approx(float(history["dev_loss"]), rel=1e-3)


def test_a_backbone_without_a_linear_first_layer_is_refused(place):
    with pytest.raises(LisbetError, match="--condition_input needs a backbone whose first layer"):
        inputs_of(backbone_preset="tcn-base", num_heads=None)


# Presets ------------------------------------------------------------------------------------------


def checked(**given):
    return COMMANDS["train_model"].check({"data_path": "data", **given})


def test_the_published_preset_is_the_default():
    assert checked(preset="published") == checked()


def test_a_preset_fills_in_what_is_not_given():
    options = checked(preset="social")
    assert options.task_ids == ("kinematics",)
    assert options.condition_input
    assert (options.window_size, options.window_offset) == (60, 29)
    own = checked(preset="social", window_size="100", learning_rate="1e-5", task_ids="cons")
    assert (own.window_size, own.window_offset) == (100, 49)
    assert own.learning_rate == 1e-5
    assert own.task_ids == ("cons",)
    assert own.condition_input
    assert checked(preset="social", window_offset="0").window_offset == 0
    assert checked(preset="social", warmup_epochs="3").warmup_share is None


def test_a_preset_leaves_out_what_another_backbone_lacks():
    for name in ("lstm-base", "tcn-base"):
        options = checked(preset="social", backbone_preset=name)
        assert options.num_heads is None
        assert not options.condition_input


def test_a_run_of_a_preset_is_repeated_from_its_config(place):
    given = ["train_model", "--preset=social", *TINY, "--epochs=1", "--learning_rate=5e-4",
             "--set", "kinematics.front=point0,kinematics.back=point2"]  # fmt: skip
    main([*given, "--run_id=a", "data"])
    main(["train_model", "--config=models/a/run_config.yml", "--run_id=b"])
    for name, value in weights_of("a").items():
        assert torch.equal(weights_of("b")[name], value), name
    main([*given, "--run_id=a", "--resume", "data"])


def test_an_unknown_preset_is_refused():
    with pytest.raises(LisbetError, match="'published' or 'social'"):
        checked(preset="best")


@pytest.mark.parametrize("more", [[], ["--fps_scaling=2"]])
def test_converted_recordings_that_are_read_in_parts(place, more):
    """Labels and conditioning from blocks; an interrupted run makes the same model."""
    write_dataset(place / "many", [2000] * 12)
    main(["convert_dataset", "many", "many.zarr"])
    words = [*PLAIN[:-1], "--task_ids=kinematics", "--learning_rate=1e-3", "--train_sample=0.2",
             "--bank_memory=600KB", *more, "many.zarr"]  # fmt: skip
    main([*words, "--epochs=2", "--run_id=whole"])
    main([*words, "--epochs=1", "--run_id=parts"])
    main([*words, "--epochs=2", "--run_id=parts", "--resume"])
    run = yaml.safe_load(Path("models/whole/run_config.yml").read_text())
    assert run["options"]["bank_memory"] == "600KB"  # and not all of them
    for name, value in weights_of("whole").items():
        assert torch.equal(weights_of("parts")[name], value), name
