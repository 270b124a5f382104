"""Heads: what turns the embeddings of a window into the answer of one task."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag
from torch import Tensor, nn

from lisbet.core.config import LARGEST_SIZE, Config


class WindowHeadConfig(Config):
    """A head that answers for a whole window; `hidden_dim` None is a single linear layer."""

    input_dim: int = Field(ge=1, le=LARGEST_SIZE)
    hidden_dim: int | None = Field(ge=1, le=LARGEST_SIZE)
    num_classes: int = Field(ge=1, le=LARGEST_SIZE)

    def build(self) -> nn.Module:
        """Make the head."""
        return WindowHead(self)


class FrameHeadConfig(Config):
    """A head that answers for one frame of the window."""

    output_token_idx: int = Field(le=-1, ge=-LARGEST_SIZE)
    input_dim: int = Field(ge=1, le=LARGEST_SIZE)
    num_classes: int = Field(ge=1, le=LARGEST_SIZE)
    hidden_dim: int | None = Field(ge=1, le=LARGEST_SIZE)

    def build(self) -> nn.Module:
        """Make the head."""
        return FrameHead(self)


class EmbeddingHeadConfig(Config):
    """A head that returns the embedding of one frame."""

    output_token_idx: int = Field(le=-1, ge=-LARGEST_SIZE)

    def build(self) -> nn.Module:
        """Make the head."""
        return EmbeddingHead(self)


def _kind(head: object) -> str:
    """Tell which head a configuration means by its keys: no two heads have the same."""
    keys = head.keys() if isinstance(head, dict) else type(head).model_fields  # type: ignore[attr-defined]
    if "output_token_idx" not in keys:
        return "window"
    return "frame" if "num_classes" in keys else "embedding"


AnyHeadConfig = Annotated[
    Annotated[WindowHeadConfig, Tag("window")]
    | Annotated[FrameHeadConfig, Tag("frame")]
    | Annotated[EmbeddingHeadConfig, Tag("embedding")],
    Discriminator(_kind),
]


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(input_dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, output_dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Turn (…, input_dim) into (…, output_dim)."""
        logits: Tensor = self.linear2(nn.functional.gelu(self.linear1(embeddings)))
        return logits


def _logits(config: WindowHeadConfig | FrameHeadConfig) -> nn.Module:
    if config.hidden_dim is None:
        return nn.Linear(config.input_dim, config.num_classes)
    return MLP(config.input_dim, config.hidden_dim, config.num_classes)


class WindowHead(nn.Module):
    """Logits of a window, from the maximum of its embeddings over time."""

    def __init__(self, config: WindowHeadConfig) -> None:
        super().__init__()
        self.logits = _logits(config)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Turn (batch, frames, embedding) into logits (batch, classes)."""
        logits: Tensor = self.logits(embeddings.amax(dim=1))
        return logits


class FrameHead(nn.Module):
    """Logits of the frame that a window describes."""

    def __init__(self, config: FrameHeadConfig) -> None:
        super().__init__()
        self.output_token_idx = config.output_token_idx
        self.logits = _logits(config)

    def forward(self, embedding: Tensor) -> Tensor:
        """Turn the embedding of the frame (batch, embedding) into logits (batch, classes)."""
        logits: Tensor = self.logits(embedding)
        return logits


class EmbeddingHead(nn.Module):
    """The embedding of the frame that a window describes, as it is."""

    def __init__(self, config: EmbeddingHeadConfig) -> None:
        super().__init__()
        self.output_token_idx = config.output_token_idx

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the embedding of the frame (batch, embedding)."""
        return embedding
