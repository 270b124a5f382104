"""The options of the network and of its optimisation."""

from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from lisbet import augment
from lisbet.core.config import Window, Words
from lisbet.core.errors import ConfigError, unknown
from lisbet.core.json_types import JsonDict
from lisbet.core.option_values import Settings
from lisbet.options._base import (
    BASE,
    PRESETS,
    TASK_NAMES,
    Augmentations,
    Options,
    Preset,
    SettingsText,
    option,
)

BACKBONE_SIZES = {
    "emb_dim": "embedding_dim",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "hidden_dim": "hidden_dim",
}
"""Options that set a size of the backbone, and the field of its configuration that they set."""


class ModelOptions(Options):
    """What the network is, and on which tasks it is trained."""

    task_ids: Words = option(
        ("cons", "order", "shift", "warp"),
        "tasks to train, comma separated",
        affects="model",
        group="tasks",
        known=TASK_NAMES,
    )
    data_augmentation: Augmentations = option(
        (),
        "augmentations of training windows, applied in this order: "
        "'all_perm_id:p=0.5,blk_perm_id:p=0.3:frac=0.2'",
        affects="model",
        group="tasks",
        known=augment.AUGMENTATIONS,
    )
    window_size: int = option(
        200, "length of a window", affects="model", group="tasks", unit="frames", ge=2
    )
    window_offset: int = option(
        0,
        "number of future frames in the window (0 = past frames only)",
        affects="model",
        group="tasks",
        unit="frames",
        ge=0,
    )
    backbone_preset: Preset = option(
        "transformer-base",
        "type and default sizes of the backbone, the part of the network that all tasks share",
        affects="model",
        group="model",
        known=PRESETS,
    )
    emb_dim: int | None = option(
        None,
        "number of values in the embedding of a frame (preset: 32)",
        affects="model",
        group="model",
        ge=1,
    )
    num_layers: int | None = option(
        None, "number of layers of the backbone", affects="model", group="model", ge=1
    )
    num_heads: int | None = option(
        None,
        "attention heads of a transformer; emb_dim must be a multiple",
        affects="model",
        group="model",
        ge=1,
    )
    hidden_dim: int | None = option(
        None, "size of the hidden layers", affects="model", group="model", ge=1
    )
    head_type: Literal["mlp", "linear"] = option(
        "mlp",
        "type of the task heads: a network with one hidden layer, or one linear layer; kinematics "
        "always has a linear one",
        affects="model",
        group="model",
    )
    set: SettingsText = option(
        Settings(),
        "settings of backbone and tasks, such as 'backbone.kernel_size=4,order.negatives=simple'",
        affects="model",
        group="model",
    )
    condition_input: bool = option(
        False,
        "train on differences of points that have unit variance; the weights that are written are "
        "those for coordinates as they are",
        affects="model",
        group="model",
    )
    load_backbone_weights: Path | None = option(
        None,
        "weights of another model; the backbone starts from them",
        affects="model",
        group="model",
    )
    freeze_backbone_weights: bool = option(
        False, "keep the backbone fixed and train only the heads", affects="model", group="model"
    )

    @field_validator("task_ids")
    @classmethod
    def _known_tasks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(frozenset(names)) < len(names):
            raise ValueError(f"{','.join(names)!r} names a task twice")
        return tuple(TASK_NAMES.require(name) for name in names)

    @model_validator(mode="after")
    def _settings_have_an_owner(self) -> Self:
        for owner in self.set.by_owner():
            if owner != "backbone" and owner not in self.task_ids:
                raise ConfigError(unknown("part", owner, ("backbone", *self.task_ids)))
        return self

    @property
    def window(self) -> Window:
        """The window of every sample."""
        return Window(size=self.window_size, offset=self.window_offset)

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.backbone_preset.removesuffix(BASE)

    @property
    def backbone_settings(self) -> JsonDict:
        """The user's changes to the preset, by the names of the backbone's configuration."""
        given = {
            name: value
            for option, name in BACKBONE_SIZES.items()
            if (value := getattr(self, option)) is not None
        }
        return given | self.set.by_owner().get("backbone", {})


class OptimizationOptions(Options):
    """Length, batch size, optimizer and precision of training."""

    epochs: int = option(
        10, "number of epochs: passes over the training frames", affects="run", group="training",
        ge=1,
    )  # fmt: skip
    batch_size: int = option(
        128,
        "windows of each task in one optimizer step, on all devices together",
        affects="model",
        group="training",
        ge=1,
    )
    micro_batch_size: int | None = option(
        None,
        "windows of each task in one forward pass of one device; gradients are accumulated over "
        "the passes of a step; default: as many as fit in half of the free memory of the device",
        affects="run",
        group="training",
        ge=1,
    )
    learning_rate: float = option(
        1e-4, "peak learning rate of AdamW", affects="model", group="training", gt=0, le=1000
    )
    weight_decay: float = option(
        0.01,
        "weight decay of AdamW",
        affects="model",
        group="training",
        ge=0,
        allow_inf_nan=False,
    )
    warmup_epochs: int = option(
        5,
        "epochs over which the learning rate rises to its peak",
        affects="model",
        group="training",
        ge=0,
    )
    warmup_share: float | None = option(
        None,
        "fraction (0-1) of all steps over which the learning rate rises, instead of "
        "--warmup_epochs",
        affects="model",
        group="training",
        ge=0,
        lt=1,
    )
    schedule: Literal["restarts", "cosine"] = option(
        "restarts",
        "learning rate after the warm-up: cosine cycles of 10, 20, 40, … epochs (restarts), or "
        "one cosine to zero at the last step (cosine); with cosine or --warmup_share a run cannot "
        "be extended with more --epochs",
        affects="model",
        group="training",
    )
    clip_grad_norm: float | None = option(
        None,
        "maximum norm of the gradient; larger gradients are scaled down to it",
        affects="model",
        group="training",
        gt=0,
        allow_inf_nan=False,
    )
    embedding_noise: float = option(
        0.0,
        "standard deviation of the Gaussian noise that is added in training to the embeddings that "
        "self-supervised tasks see; embeddings have a standard deviation of about 1",
        affects="model",
        group="training",
        ge=0,
        le=10,
    )
    train_sample: float = option(
        1.0,
        "fraction (0-1) of the training frames used per epoch; smaller = shorter epochs",
        affects="model",
        group="training",
        gt=0,
        le=1,
    )
    seed: int = option(
        1991,
        "seed of initial weights, samples and split",
        affects="model",
        group="training",
        ge=0,
        lt=2**63,
    )
    mixed_precision: Literal["no", "bf16", "fp16", "best"] | None = option(
        None,
        "mixed-precision mode; without a value: the best that the device supports",
        affects="model",
        group="training",
        bare="best",
    )
    tf32: bool = option(
        False,
        "let NVIDIA GPUs compute float32 matrix products in TF32: faster, about three significant "
        "digits",
        affects="model",
        group="training",
    )
    compile: bool = option(
        False,
        "compile the network with torch.compile: faster steps on a GPU after a first one that "
        "takes up to a minute",
        affects="run",
        group="training",
    )
    skip_nonfinite: int = option(
        0,
        "number of steps that may be skipped because a loss or the gradient is infinite or NaN",
        affects="run",
        group="training",
        ge=0,
    )

    @model_validator(mode="after")
    def _warms_up_in_one_way(self) -> Self:
        default = OptimizationOptions.model_fields["warmup_epochs"].default  # run_config has both
        if self.warmup_share is not None and self.warmup_epochs != default:
            raise ConfigError("--warmup_share and --warmup_epochs both set the warm-up; pass one")
        return self
