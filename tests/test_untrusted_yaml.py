"""Configurations from others: one message, in bounded time and memory."""

import copy
import resource
import time
from pathlib import Path

import pytest
import torch
import yaml

from lisbet.cli import main
from lisbet.core import yaml_files
from lisbet.core.errors import ConfigError
from lisbet.core.yaml_files import read_yaml
from lisbet.models import model_dir
from lisbet.models.multitask import ModelConfig, MultiTaskModel

MODEL = {
    "model_id": "m",
    "backbone": {"type": "transformer", "feature_dim": 12, "embedding_dim": 8, "hidden_dim": 16,
                 "num_heads": 2, "num_layers": 1, "max_length": 12},
    "input_features": {"individuals": ["m0", "m1"], "keypoints": ["a", "b", "c"],
                       "space": ["x", "y"]},
    "out_heads": {"cons": {"input_dim": 8, "hidden_dim": 16, "num_classes": 1}},
    "window_size": 12,
    "window_offset": 0,
}  # fmt: skip
ODD = [10**12, 10**400, 0, -1, 1.5, float("inf"), float("nan"), True, "many", None, [1], {"a": 1}]


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    torch.save(MultiTaskModel(ModelConfig(**MODEL)).state_dict(), "weights/w.pt")
    return tmp_path / "model_config.yml"


def refused(capsys, *words: object) -> str:
    """Run a command that must refuse with one message, soon and without much memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert caught.value.code == 2, said
    assert said.err.startswith("betman: error: ")
    assert "Traceback" not in said.err
    assert len(said.err) < 8000
    assert said.out == ""
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB
    return said.err


def edited(*place: str, value: object) -> str:
    """Return the configuration with one value changed."""
    content = copy.deepcopy(MODEL)
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return yaml.dump(content, Dumper=yaml.CSafeDumper)


SIZES = [
    *(("backbone", name) for name in MODEL["backbone"]),
    *(("out_heads", "cons", name) for name in MODEL["out_heads"]["cons"]),
    ("window_size",), ("window_offset",),
]  # fmt: skip


@pytest.mark.parametrize("place", SIZES, ids=".".join)
def test_odd_sizes(place, model, capsys):
    for value in ODD:
        if place[-1] == "type" and isinstance(value, str):
            value = "x" * 10**5
        if (place[-1], value) in (("window_offset", 0), ("hidden_dim", None)):
            continue  # these are no errors
        model.write_text(edited(*place, value=value))
        for words in (["model_info", model], ["export_embedder", model, "weights/w.pt"]):
            refused(capsys, *words)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("backbone", "num_layers"), 64),  # all within their bounds, but not in the weights
        (("backbone", "hidden_dim"), 65536),
        (("backbone", "max_length"), 65536),
        (("out_heads",), {f"h{n}": MODEL["out_heads"]["cons"] for n in range(1000)}),
        (("out_heads",), {"a.b": MODEL["out_heads"]["cons"]}),
        (("out_heads",), {"keys": MODEL["out_heads"]["cons"]}),
        (("out_heads",), {"": MODEL["out_heads"]["cons"]}),
        (("out_heads",), [1, 2]),
        (("out_heads",), {"cons": {"input_dim": True}}),
        (("input_features", "individuals"), [f"m{n}" for n in range(9000)]),
        (("input_features", "keypoints"), [[n] for n in range(9000)]),
        (("input_features", "space"), "xy"),
        (("input_features", "space"), []),
        (("behaviors",), {"multiclass": list(range(9000))}),
        (("behaviors",), [1]),
        (("model_id",), "../x"),
        (("model_id",), "x\ny"),
        (("model_id",), 7),
    ],
)
def test_odd_models(place, value, model, capsys):
    model.write_text(edited(*place, value=value))
    said = refused(capsys, "export_embedder", model, "weights/w.pt")
    assert "model_config.yml" in said or "does not fit the model" in said
    assert not Path("models").exists()


def test_a_tcn_that_pads_more_than_memory(model, capsys):
    tcn = {"type": "tcn", "feature_dim": 12, "embedding_dim": 8, "num_layers": 20}
    model.write_text(edited("backbone", value=tcn))
    assert "look back more than 65536 frames" in refused(capsys, "model_info", model)


def test_the_largest_sizes_are_described_without_memory(model, capsys):
    sizes = {"hidden_dim": 65536, "num_layers": 256, "max_length": 65536}
    model.write_text(edited("backbone", value=MODEL["backbone"] | sizes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    main(["model_info", str(model)])
    assert "num_layers 256" in capsys.readouterr().out
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
TEXTS = {
    "laughs": BOMB,
    "merges": MERGES,
    "itself": "a: &a [*a]",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "a: " + "{b: " * 900 + "1" + "}" * 900,
    "open": "[" * 200_000,
    "number": "a: " + "9" * 10_000,
    "hexadecimal": "a: 0x" + "f" * 10_000,
    "sexagesimal": "a: 1" + ":1" * 30_000,
    "date": "a: 2001-99-99",
    "keys": "? [1, 2]\n: 3",
    "unhashable": "? {a: 1}\n: 3",
    "code": "a: !!python/object/apply:os.mkdir [ran]",
    "tag": "a: !mine 1",
    "two": "a: 1\n---\nb: 2",
    "list": "[1, 2]",
    "empty": "",
    "control": "a: \x00\x01",
    "binary": "a: !!binary '*'",
    "alias": "a: *b",
}


@pytest.mark.parametrize("name", TEXTS)
def test_odd_texts(name, model, tmp_path, capsys):
    model.write_text(TEXTS[name])
    for words in (
        ["model_info", model],
        ["train_model", f"--config={model}", "data"],
        ["train_model", f"--launch={model}", "data"],
    ):
        assert "model_config.yml" in refused(capsys, *words)
    assert not (tmp_path / "ran").exists()


def test_odd_files(model, tmp_path, capsys):
    model.write_bytes(bytes(range(256)) * 100)
    assert "is not YAML" in refused(capsys, "model_info", model)
    with model.open("wb") as stream:
        stream.truncate(2**30)  # takes no space
    for words in (["model_info", model], ["train_model", f"--config={model}", "data"]):
        assert "has 1073741824 bytes; expected YAML of at most" in refused(capsys, *words)
    model.unlink()
    model.symlink_to("/dev/zero")
    assert "no such file" in refused(capsys, "model_info", model)


def test_many_values(tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_files, "MOST_VALUES", 1000)
    (tmp_path / "a.yml").write_text(f"a: [{'1,' * 2000}]")
    with pytest.raises(ConfigError, match="more than 1000 values"):
        read_yaml(tmp_path / "a.yml")


def test_anchors_are_understood(tmp_path):
    text = "a: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  y: 2\nd: &s word\ne: *s\n"
    (tmp_path / "a.yml").write_text(text)
    assert read_yaml(tmp_path / "a.yml") == {
        "a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}, "d": "word", "e": "word",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w[:1].expand(10**6, *w.shape[1:]) if w.dim() > 1 else w,
        lambda w: w.to_sparse(),
        lambda w: w.to("meta"),
        lambda w: w.to(torch.int64),
        lambda w: w.to(torch.complex64),
    ],
    ids=["expanded", "sparse", "meta", "integers", "complex"],
)
def test_weights_that_are_not_in_their_file(change, model, capsys):
    model.write_text(yaml.safe_dump(MODEL))
    weights = torch.load("weights/w.pt", weights_only=True)
    torch.save({key: change(value) for key, value in weights.items()}, "weights/w.pt")
    assert "is not a plain tensor" in refused(capsys, "export_embedder", model, "weights/w.pt")


def test_a_good_model_is_taken(model, capsys):
    model.write_text(yaml.safe_dump(MODEL))
    config, network = model_dir.load_model(model, Path("weights/w.pt"))
    assert config.window_size == 12
    assert not any(weight.is_meta for weight in network.parameters())
    main(["model_info", str(model)])
    assert "parameters:  977 " in capsys.readouterr().out
