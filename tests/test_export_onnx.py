"""ONNX files answer as the models that they are made of."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import names

from lisbet.cli import main
from lisbet.commands.hub import export_onnx
from lisbet.core.yaml_files import write_yaml
from lisbet.models.multitask import ModelConfig, MultiTaskModel

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

BACKBONES = {
    "transformer": {"hidden_dim": 16, "num_heads": 2, "num_layers": 2, "max_length": 12},
    "lstm": {"hidden_dim": 12, "num_layers": 2},
    "tcn": {"hidden_dim": 12, "num_layers": 2, "kernel_size": 3, "dilation_base": 2},
}
HEADS = {
    "embedding": {"output_token_idx": -4},
    "multiclass": {"output_token_idx": -4, "input_dim": 8, "hidden_dim": 16, "num_classes": 3},
    "multilabel": {"output_token_idx": -4, "input_dim": 8, "hidden_dim": None, "num_classes": 2},
    "warp": {"input_dim": 8, "hidden_dim": 16, "num_classes": 1},
}


def write_model(backbone: str, *heads: str) -> MultiTaskModel:
    """A model m that was never trained, in the current folder."""
    content = {
        "model_id": "m",
        "backbone": {"type": backbone, "feature_dim": 12, "embedding_dim": 8,
                     **BACKBONES[backbone]},
        "input_features": names().model_dump(mode="json"),
        "out_heads": {name: HEADS[name] for name in heads},
        "behaviors": {"multiclass": ["rest", "run", "groom"]} if "multiclass" in heads else {},
        "window_size": 12, "window_offset": 3,
    }  # fmt: skip
    torch.manual_seed(0)
    model = MultiTaskModel(ModelConfig(**content)).eval()
    Path("m/weights").mkdir(parents=True)
    write_yaml(Path("m/model_config.yml"), content)
    torch.save(model.state_dict(), "m/weights/weights_last.pt")
    return model


def fails(*words: str, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["export_onnx", *words])
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "heads"),
    [("transformer", ("embedding",)), ("lstm", ("multilabel",)),
     ("tcn", ("multiclass", "multilabel", "warp"))],
)  # fmt: skip
def test_the_file_answers_as_the_model(backbone, heads):
    model = write_model(backbone, *heads)
    main(["export_onnx", "m"])
    session = onnxruntime.InferenceSession("models/m-onnx/model.onnx")
    shown = [name for name in heads if name != "warp"]  # which only training needs
    assert [output.name for output in session.get_outputs()] == shown
    rng = np.random.default_rng(5)
    for batch in (1, 33):
        windows = rng.random((batch, 12, 12), dtype=np.float32)
        with torch.inference_mode():
            frame = model.backbone(torch.from_numpy(windows))[:, 8]
            expected = {name: model.task_heads[name](frame) for name in shown}
        answers = session.run(None, {"windows": windows})
        for name, answer in zip(shown, answers, strict=True):
            np.testing.assert_allclose(answer, expected[name].numpy(), atol=1e-5)


def test_what_the_file_says_about_itself():
    write_model("lstm", "multiclass")
    main(["export_onnx", "m/model_config.yml", "m/weights/weights_last.pt"])
    proto = onnx.load("models/m-onnx/model.onnx")
    told = {entry.key: entry.value for entry in proto.metadata_props}
    assert (told["model_id"], told["window_size"], told["window_offset"]) == ("m", "12", "3")
    assert json.loads(told["features"])[:3] == ["mouse0/point0/x", "mouse0/point0/y",
                                                "mouse0/point1/x"]  # fmt: skip
    assert json.loads(told["behaviors"]) == {"multiclass": ["rest", "run", "groom"]}
    assert ModelConfig(**json.loads(told["model_config"])).window_offset == 3
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert told["opset"] == "18"
    content = Path("models/m-onnx/model.onnx").read_bytes()
    assert b".py" not in content  # lines of code, with paths of this machine


def test_what_is_refused(capsys, monkeypatch):
    write_model("lstm", "warp")
    assert "export_embedder" in fails("m", capsys=capsys)
    assert "none/model_config.yml" in fails("none/model_config.yml", capsys=capsys)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name == "onnxscript" else found(name))  # fmt: skip
    assert "pip install 'lisbet[onnx]'" in fails("m", capsys=capsys)
    assert not Path("models").exists()


def test_a_file_that_answers_otherwise_is_not_published(capsys, monkeypatch):
    write_model("tcn", "embedding")
    convert = export_onnx.converted

    def wrong(network, config):
        proto = convert(network, config)
        for tensor in proto.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * 1.01, tensor.name))
        return proto

    monkeypatch.setattr(export_onnx, "converted", wrong)
    assert "answers otherwise than PyTorch" in fails("m", capsys=capsys)
    assert not Path("models/m-onnx").exists()
