"""The network: one backbone, and a head for each task."""

from typing import Annotated, Any, Self

import torch
from pydantic import ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lisbet.core.config import MOST_NAMES, Config, Features, Window, require_name
from lisbet.core.errors import ModelError
from lisbet.core.json_types import JsonDict
from lisbet.models.backbones import BACKBONES, BackboneConfig
from lisbet.models.heads import AnyHeadConfig
from lisbet.options._preparation import Preparation

SHOWN = 10
"""At most so many tensors are named in one message."""
MOST_HEADS = 100


class ModelConfig(Config):
    """What model_config.yml holds: enough to build the network again."""

    model_id: str
    backbone: JsonDict
    input_features: Features
    out_heads: dict[str, AnyHeadConfig]
    window_size: int
    window_offset: int
    behaviors: dict[str, Annotated[tuple[str, ...], Field(max_length=MOST_NAMES)]] = Field(
        default_factory=dict
    )
    """Classes of the supervised heads; a key of ours that other programs ignore."""
    targets: dict[str, JsonDict] = Field(default_factory=dict)
    """Names, means and standard deviations of what heads of computed labels predict; also ours."""
    preparation: Preparation | None = None
    """How the recordings were prepared that it was trained on; another key of ours."""

    model_config = ConfigDict(extra="ignore")  # other programs may add keys

    @field_validator("backbone", "out_heads", "window_size", "window_offset", mode="before")
    @classmethod
    def _sizes_are_numbers(cls, raw: object) -> object:
        """Refuse true and false, which pydantic would read as 1 and 0."""
        for part in (raw, *raw.values()) if isinstance(raw, dict) else (raw,):
            for value in part.values() if isinstance(part, dict) else (part,):
                if isinstance(value, bool):
                    raise ValueError(f"expected numbers, got {str(value).lower()}")
        return raw

    @field_validator("out_heads")
    @classmethod
    def _heads_have_plain_names(cls, heads: JsonDict) -> JsonDict:
        for name in heads:
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):  # torch's own rule
                raise ValueError(f"{name[:80]!r} cannot be the name of a head")
        if len(heads) > MOST_HEADS:
            raise ValueError(f"there are {len(heads)} heads; expected at most {MOST_HEADS}")
        return heads

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self.window  # noqa: B018 - building it is the check
        if self.backbone_config.feature_dim != self.input_features.size:
            raise ValueError(
                f"the backbone takes {self.backbone_config.feature_dim} features, but the input "
                f"features make {self.input_features.size}"
            )
        longest = self.backbone_config.longest_window
        if longest is not None and longest < self.window_size:
            raise ValueError(
                f"the backbone takes {longest} frames, but the window has {self.window_size}"
            )
        for name, head in self.out_heads.items():
            token = getattr(head, "output_token_idx", -1)
            width = getattr(head, "input_dim", self.backbone_config.embedding_dim)
            if token < -self.window_size or width != self.backbone_config.embedding_dim:
                raise ValueError(f"head {name!r} does not fit the window or the backbone")
        return self

    @field_validator("model_id")
    @classmethod
    def _model_id_is_a_name(cls, model_id: str) -> str:
        return require_name(model_id)  # folders are named by it

    @property
    def window(self) -> Window:
        """The window that the network takes."""
        return Window(size=self.window_size, offset=self.window_offset)

    @property
    def backbone_config(self) -> BackboneConfig:
        """The typed configuration of the backbone."""
        sizes = dict(self.backbone)
        return BACKBONES[str(sizes.pop("type", ""))].Config(**sizes)


class MultiTaskModel(nn.Module):
    """A backbone that all tasks share, and their heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.backbone = BACKBONES[config.backbone["type"]](config.backbone_config)
        self.task_heads = nn.ModuleDict(
            {name: head.build() for name, head in config.out_heads.items()}
        )

    def forward(
        self, windows: dict[str, Tensor], noise: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Answer all tasks at once.

        The windows of all tasks pass the backbone together: a forward for each task would leave
        heads out, which breaks DDP and lets DeepSpeed step once per task.

        Parameters
        ----------
        windows : dict of Tensor
            By task: (batch, frames, features), or with the features still in their axes,
            (batch, frames, individuals, keypoints, space). Batch sizes may differ.
        noise : dict of Tensor, optional
            By task: (batch, embedding), added to the embeddings of all frames.

        Returns
        -------
        dict of Tensor
            By task: (batch, classes), or (batch, embedding) from an embedding head.
        """
        sizes = [len(batch) for batch in windows.values()]
        together = torch.cat([batch.flatten(start_dim=2) for batch in windows.values()])
        frames = {task: self._frame_of(task) for task in windows}
        wanted = set(frames.values())
        if len(wanted) == 1 and (frame := wanted.pop()) is not None:
            embeddings = self.backbone.frame_embedding(together, frame)
            frames = dict.fromkeys(windows)  # it is chosen already
        else:
            embeddings = self.backbone(together)
        answers = {}
        for (task, frame), part in zip(frames.items(), torch.split(embeddings, sizes), strict=True):
            if noise is not None and task in noise:
                own = noise[task].to(part.dtype)
                part = part + (own if part.dim() == 2 else own[:, None])
            answers[task] = self.task_heads[task](part if frame is None else part[:, frame])
        return answers

    def _frame_of(self, task: str) -> int | None:
        """Return the frame whose embedding a head takes; None for one that takes all frames."""
        frame: int | None = getattr(self.task_heads[task], "output_token_idx", None)
        return frame


def outline(config: ModelConfig) -> MultiTaskModel:
    """Build a network that has names and shapes of weights, but no memory for them."""
    with torch.device("meta"), _Undrawn():
        return MultiTaskModel(config)


class _Undrawn(TorchFunctionMode):
    """Leaves weights without values as they are; PyTorch loads its compiler to draw them."""

    drawing = frozenset({Tensor.uniform_, Tensor.normal_, Tensor.mul_, Tensor.fill_, Tensor.zero_})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do nothing where a tensor would be drawn."""
        del types
        if func is torch.randn:
            return torch.empty(*args, **(kwargs or {}))
        return args[0] if func in self.drawing else func(*args, **(kwargs or {}))


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load a state dict that must fit exactly, see `require_fitting`."""
    require_fitting(model, weights, source)
    model.load_state_dict(weights, strict=True)


def require_fitting(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Refuse a state dict that does not fit a network exactly.

    Raises
    ------
    ModelError
        Naming the keys that are missing, left over or of another shape.
    """
    own = model.state_dict()
    problems = [f"{key} is missing" for key in own.keys() - weights.keys()]
    problems += [f"{key} is not part of the network" for key in weights.keys() - own.keys()]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]
    if problems:
        shown = "\n  ".join(sorted(problems)[:SHOWN])
        raise ModelError(
            f"{source} does not fit the model ({len(problems)} of its tensors):\n  {shown}"
        )


def require_whole_backbone(config: JsonDict, weights: dict[str, Tensor], source: str) -> None:
    """Refuse weights that lack tensors of a backbone: frozen, those would stay random.

    Parameters
    ----------
    config : dict
        The part ``backbone`` of model_config.yml; `feature_dim` does not matter.
    weights : dict of Tensor
        State dict of another model.
    source : str
        The file it is from, to name it.

    Raises
    ------
    ModelError
        Naming the tensors that are missing.
    """
    sizes = dict(config)
    kind = BACKBONES[str(sizes.pop("type"))]
    with torch.device("meta"):  # names only
        own = {f"backbone.{name}" for name in kind(kind.Config(**sizes)).state_dict()}
    missing = sorted(own - weights.keys())
    if missing:
        more = [f"… and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
        shown = "\n  ".join([*missing[:SHOWN], *more])
        raise ModelError(
            f"--freeze_backbone_weights: {source} lacks {len(missing)} of the {len(own)} tensors "
            "of the backbone, which would stay as they are drawn at random; use the sizes of the "
            "model that the file is from, or train the backbone, too, without "
            f"--freeze_backbone_weights:\n  {shown}"
        )


def load_backbone(model: MultiTaskModel, weights: dict[str, Tensor], source: str) -> str:
    """Start the backbone from the weights of another model.

    Returns
    -------
    str
        What was loaded, what was not, and why.

    Raises
    ------
    ModelError
        If nothing fits, or a tensor of the backbone has another shape.
    """
    own = model.backbone.state_dict()
    prefix = "backbone."
    offered = {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
    wrong = [
        f"{key} has shape {tuple(offered[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & offered.keys()
        if own[key].shape != offered[key].shape
    ]
    if wrong or not own.keys() & offered.keys():
        why = "\n  ".join(sorted(wrong)) or "it holds none of the backbone's tensors"
        raise ModelError(
            f"{source} does not fit the backbone; train with its sizes, window_size and "
            f"features, or another file:\n  {why}"
        )
    loaded = own.keys() & offered.keys()
    model.backbone.load_state_dict(own | {key: offered[key] for key in loaded}, strict=True)
    notes = [f"{len(loaded)} of {len(own)} tensors of the backbone are from {source}"]
    if fresh := sorted(own.keys() - loaded):
        notes.append(f"not in the file, so drawn at random: {', '.join(fresh)}")
    if foreign := sorted(offered.keys() - own.keys()):
        notes.append(f"in the file, but not part of this backbone: {', '.join(foreign)}")
    if heads := sorted({key.split(".")[1] for key in weights if key.startswith("task_heads.")}):
        notes.append(f"heads are never taken: {', '.join(heads)}")
    return "\n".join(notes)
