"""Networks: the contract of names and shapes, and a plain forward put together from the weights."""

import pytest
import torch
import yaml
from conftest import names
from pydantic import ValidationError
from torch.nn import functional as F

from lisbet.core.config import Features
from lisbet.core.errors import ConfigError, LisbetError, ModelError
from lisbet.models.backbones import BACKBONES
from lisbet.models.multitask import ModelConfig, MultiTaskModel, load_weights

MICE = Features(
    individuals=("resident", "intruder"),
    keypoints=("nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail"),
    space=("x", "y"),
)
E, H, W, FEATURES, LAYERS, HEADS = 64, 256, 200, 28, 2, 8

CONFIG = f"""
model_id: lisbet64x8-calms21U
backbone: {{type: transformer, feature_dim: {FEATURES}, embedding_dim: {E}, hidden_dim: {H},
            num_heads: {HEADS}, num_layers: {LAYERS}, max_length: {W}}}
input_features:
  individuals: [resident, intruder]
  keypoints: [nose, left_ear, right_ear, neck, left_hip, right_hip, tail]
  space: [x, y]
out_heads:
  cons: {{input_dim: {E}, hidden_dim: {H}, num_classes: 1}}
  multiclass: {{output_token_idx: -4, input_dim: {E}, num_classes: 4, hidden_dim: null}}
  embedding: {{output_token_idx: -4}}
window_size: {W}
window_offset: 3
"""


def config(text: str = CONFIG) -> ModelConfig:
    return ModelConfig(**yaml.safe_load(text))


def test_the_state_dict_has_exactly_the_documented_keys_and_shapes():
    layer = {
        "self_attn.in_proj_weight": (3 * E, E),
        "self_attn.in_proj_bias": (3 * E,),
        "self_attn.out_proj.weight": (E, E),
        "self_attn.out_proj.bias": (E,),
        "linear1.weight": (H, E),
        "linear1.bias": (H,),
        "linear2.weight": (E, H),
        "linear2.bias": (E,),
        "norm1.weight": (E,),
        "norm1.bias": (E,),
        "norm2.weight": (E,),
        "norm2.bias": (E,),
    }
    expected = {
        "backbone.frame_embedder.weight": (E, FEATURES),
        "backbone.frame_embedder.bias": (E,),
        "backbone.pos_embedder.pos_emb": (W, E),
        "backbone.layer_norm.weight": (E,),
        "backbone.layer_norm.bias": (E,),
        "task_heads.cons.logits.linear1.weight": (H, E),
        "task_heads.cons.logits.linear1.bias": (H,),
        "task_heads.cons.logits.linear2.weight": (1, H),
        "task_heads.cons.logits.linear2.bias": (1,),
        "task_heads.multiclass.logits.weight": (4, E),
        "task_heads.multiclass.logits.bias": (4,),
    } | {
        f"backbone.transformer_encoder.layers.{n}.{key}": shape
        for n in range(LAYERS)
        for key, shape in layer.items()
    }
    found = {k: tuple(v.shape) for k, v in MultiTaskModel(config()).state_dict().items()}
    assert found == expected


def plain_backbone(weights: dict, x: torch.Tensor) -> torch.Tensor:
    """The transformer as the contract describes it, from nothing but the state dict."""
    w = {key.removeprefix("backbone."): value for key, value in weights.items()}
    x = x @ w["frame_embedder.weight"].T + w["frame_embedder.bias"] + w["pos_embedder.pos_emb"]
    for n in range(LAYERS):
        p = {
            key.removeprefix(f"transformer_encoder.layers.{n}."): value for key, value in w.items()
        }
        normed = F.layer_norm(x, (E,), p["norm1.weight"], p["norm1.bias"])
        qkv = normed @ p["self_attn.in_proj_weight"].T + p["self_attn.in_proj_bias"]
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        attention = (q @ k.transpose(-1, -2) / (E / HEADS) ** 0.5).softmax(-1)
        joined = (attention @ v).transpose(1, 2).flatten(2)
        x = x + joined @ p["self_attn.out_proj.weight"].T + p["self_attn.out_proj.bias"]
        normed = F.layer_norm(x, (E,), p["norm2.weight"], p["norm2.bias"])
        hidden = F.gelu(normed @ p["linear1.weight"].T + p["linear1.bias"])
        x = x + hidden @ p["linear2.weight"].T + p["linear2.bias"]
    return F.layer_norm(x, (E,), w["layer_norm.weight"], w["layer_norm.bias"])


@pytest.mark.parametrize("training", [True, False])
def test_equals_a_plain_forward_put_together_from_the_weights(training):
    torch.manual_seed(0)
    model = MultiTaskModel(config()).train(training)
    w = model.state_dict()
    x = torch.rand(3, W, FEATURES)
    with torch.no_grad():
        out = model({"cons": x, "multiclass": x, "embedding": x})
        tokens = plain_backbone(w, x)
        head = {k.removeprefix("task_heads.cons.logits."): v for k, v in w.items()}
        hidden = F.gelu(tokens.amax(1) @ head["linear1.weight"].T + head["linear1.bias"])
        torch.testing.assert_close(
            out["cons"], hidden @ head["linear2.weight"].T + head["linear2.bias"]
        )
        torch.testing.assert_close(out["embedding"], tokens[:, -4])
        frame = tokens[:, -4] @ w["task_heads.multiclass.logits.weight"].T
        torch.testing.assert_close(
            out["multiclass"], frame + w["task_heads.multiclass.logits.bias"]
        )


def test_features_are_flattened_individuals_first():
    model = MultiTaskModel(config()).eval()
    windows = torch.rand(2, W, 2, 7, 2)
    with torch.no_grad():
        together = model({"embedding": windows})["embedding"]
        flat = model({"embedding": windows.reshape(2, W, FEATURES)})["embedding"]
    assert (together == flat).all()


def test_tasks_in_one_forward_are_tasks_apart():
    torch.manual_seed(0)
    model = MultiTaskModel(config()).eval()
    a, b = torch.rand(2, W, FEATURES), torch.rand(5, W, FEATURES)
    with torch.no_grad():
        both = model({"cons": a, "multiclass": b})
        torch.testing.assert_close(both["cons"], model({"cons": a})["cons"])
        torch.testing.assert_close(both["multiclass"], model({"multiclass": b})["multiclass"])


def test_layers_do_not_start_as_copies_of_one():
    layers = MultiTaskModel(config()).backbone.transformer_encoder.layers
    assert not torch.equal(layers[0].linear1.weight, layers[1].linear1.weight)
    assert not torch.equal(layers[0].self_attn.in_proj_weight, layers[1].self_attn.in_proj_weight)


def test_equals_pytorchs_layers_bit_by_bit_forward_and_backward():
    """Same arithmetic as the modules of PyTorch that earlier versions were made of."""
    torch.manual_seed(0)
    own = MultiTaskModel(config()).backbone.transformer_encoder
    layer = torch.nn.TransformerEncoderLayer(
        E, HEADS, H, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    theirs = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    theirs.load_state_dict(own.state_dict(), strict=True)
    x = torch.randn(3, W, E)
    answers, gradients = [], []
    for encoder, more in ((own, (slice(None),)), (theirs, ())):
        answers.append(encoder(x, *more))
        answers[-1].square().sum().backward()
        gradients.append({name: weight.grad for name, weight in encoder.named_parameters()})
    assert torch.equal(*answers)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("tasks", [("embedding",), ("multiclass", "embedding")])
def test_heads_of_one_frame_get_what_the_whole_window_would_give_them(tasks):
    torch.manual_seed(0)
    model = MultiTaskModel(config())
    windows = {task: torch.rand(3, W, FEATURES) for task in tasks}
    alone = model(windows)
    whole = model(windows | {"cons": torch.rand(1, W, FEATURES)})
    for task in tasks:
        torch.testing.assert_close(alone[task], whole[task], atol=1e-6, rtol=1e-6)


def test_heads_of_one_frame_do_not_compute_the_others_in_the_last_layer():
    model = MultiTaskModel(config())
    seen = []
    last = model.backbone.transformer_encoder.layers[-1]
    last.linear1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    model({"embedding": torch.rand(3, W, FEATURES)})
    model({"cons": torch.rand(3, W, FEATURES)})
    assert seen == [(3, 1, H), (3, W, H)]


class TestEveryBackbone:
    """What any file in models/backbones must do."""

    @pytest.fixture(params=list(BACKBONES))
    def backbone(self, request):
        torch.manual_seed(0)
        kind = BACKBONES[request.param]
        return kind(kind.Config.for_window(12, 20)).eval()

    @pytest.mark.parametrize("frame", [-4, 0])
    def test_the_embedding_of_one_frame_is_that_of_the_window(self, backbone, frame):
        x = torch.rand(3, 20, 12)
        one = backbone.frame_embedding(x, frame)
        torch.testing.assert_close(one, backbone(x)[:, frame], atol=1e-6, rtol=1e-5)

    def test_one_embedding_for_each_frame(self, backbone):
        out = backbone(torch.rand(3, 20, 12))
        assert out.shape == (3, 20, 32)
        assert out.isfinite().all()

    def test_samples_do_not_see_each_other(self, backbone):
        x = torch.rand(3, 20, 12)
        with torch.no_grad():
            torch.testing.assert_close(backbone(x)[1:2], backbone(x[1:2]), atol=1e-5, rtol=1e-5)

    def test_every_weight_learns(self, backbone):
        backbone(torch.rand(3, 20, 12)).square().sum().backward()
        assert all(weight.grad is not None for weight in backbone.parameters())

    def test_unknown_settings_are_refused(self, backbone):
        with pytest.raises(ValidationError):
            backbone.Config(feature_dim=3, size=4)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "lstm",
            {"input_proj.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l1", "output_proj.bias"},
        ),
        ("tcn", {"network.0.conv1.weight", "network.1.conv2.bias", "network.0.downsample.weight"}),
    ],
)
def test_other_backbones_have_the_documented_keys(name, keys):
    kind = BACKBONES[name]
    assert keys <= kind(kind.Config.for_window(12, 20)).state_dict().keys()


@pytest.mark.parametrize("name", ["lstm", "tcn"])
def test_other_backbones_are_causal(name):
    torch.manual_seed(0)
    kind = BACKBONES[name]
    backbone = kind(kind.Config.for_window(12, 20)).eval()
    x = torch.rand(1, 20, 12)
    later = x.clone()
    later[:, 10:] += 1
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[:, :10], backbone(later)[:, :10])


def test_weights_must_fit_exactly():
    model = MultiTaskModel(config())
    weights = dict(model.state_dict())
    weights["more"] = weights.pop("backbone.layer_norm.bias")
    weights["backbone.layer_norm.weight"] = torch.ones(3)
    with pytest.raises(ModelError) as caught:
        load_weights(model, weights, "w.pt")
    for part in ("w.pt", "layer_norm.bias is missing", "more is not part", "(3,) instead of (64,)"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("feature_dim: 28", "feature_dim: 14"),
        ("type: transformer", "type: transformr"),
        ("num_heads: 8", "num_heads: 7"),
        ("window_offset: 3", "window_offset: 300"),
        ("max_length: 200", "max_len: 200"),
        ("num_classes: 1", "classes: 1"),
        ("max_length: 200", "max_length: 100"),
        ("{output_token_idx: -4}", "{output_token_idx: -400}"),
        ("{input_dim: 64, hidden", "{input_dim: 32, hidden"),
        ("model_id: lisbet64x8-calms21U", "model_id: ../elsewhere"),
        ("model_id: lisbet64x8-calms21U", "model_id: ."),
    ],
)
def test_configurations_that_describe_no_network(old, new):
    filled = CONFIG.replace(old, new)
    assert filled != CONFIG
    with pytest.raises((ValidationError, LisbetError)):
        config(filled)


def test_an_unknown_backbone_is_named():
    with pytest.raises(ConfigError, match="did you mean 'transformer'"):
        config(CONFIG.replace("type: transformer", "type: transformr"))
    assert names(2, 7).size == MICE.size == FEATURES
