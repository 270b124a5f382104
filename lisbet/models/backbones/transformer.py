"""The published LISBET backbone: a pre-norm transformer encoder over the frames of a window."""

import copy
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lisbet.core.config import LARGEST_SIZE, MOST_LAYERS
from lisbet.models.backbones._backbone import Backbone, BackboneConfig, unrounded

ALL = slice(None)
"""All frames of a window."""
POSITION_STD = 0.02
"""Spread of the initial position embedding, as in BERT (https://arxiv.org/abs/1810.04805)."""


class TransformerConfig(BackboneConfig):
    """Sizes of a transformer."""

    hidden_dim: int = Field(128, ge=1, le=LARGEST_SIZE)
    num_heads: int = Field(4, ge=1, le=LARGEST_SIZE)
    num_layers: int = Field(4, ge=1, le=MOST_LAYERS)
    max_length: int = Field(200, ge=1, le=LARGEST_SIZE)

    derived: ClassVar[frozenset[str]] = frozenset({"feature_dim", "max_length"})

    @property
    def longest_window(self) -> int:
        """Most frames that a window may have: one position for each."""
        return self.max_length

    @property
    def head_hidden_dim(self) -> int:
        """Size of the hidden layer of the task heads."""
        return self.hidden_dim

    @model_validator(mode="after")
    def _heads_share_the_embedding(self) -> Self:
        if self.embedding_dim % self.num_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must divide the embedding's size "
                f"({self.embedding_dim}, --emb_dim)"
            )
        return self

    @classmethod
    def for_window(cls, feature_dim: int, window_size: int, **settings: object) -> Self:
        """Make the configuration for windows of this size: one position for each frame."""
        return cls(feature_dim=feature_dim, max_length=window_size, **settings)


class PositionEmbedder(nn.Module):
    """Add a learned vector to each frame of a window."""

    def __init__(self, max_length: int, embedding_dim: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.randn(max_length, embedding_dim).mul_(POSITION_STD))

    def forward(self, frames: Tensor) -> Tensor:
        """Add the vectors to frames (batch, frames, embedding)."""
        return frames + self.pos_emb[: frames.shape[1]]


class SelfAttention(nn.Module):
    """Full attention among the frames of a window, with the weights of nn.MultiheadAttention.

    It answers as that module does. Queries, keys and values are views of one product, which that
    module copies into another layout.
    """

    def __init__(self, embedding_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embedding_dim, embedding_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embedding_dim))
        self.out_proj = nn.Linear(embedding_dim, embedding_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the input projection, and set the biases to zero, as nn.MultiheadAttention does."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, frames: Tensor, only: slice) -> Tensor:
        """Let the frames in `only` attend to all: (batch, frames, embedding) of each."""
        batch, length, width = frames.shape
        joined = F.linear(frames, self.in_proj_weight, self.in_proj_bias)
        shape = (batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = joined.view(shape).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query[:, :, only], key, value)
        answer: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return answer


class TransformerEncoderLayer(nn.Module):
    """A pre-norm layer with exact GELU and no dropout, with the weights of PyTorch's."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.embedding_dim, config.num_heads)
        self.linear1 = nn.Linear(config.embedding_dim, config.hidden_dim)
        self.linear2 = nn.Linear(config.hidden_dim, config.embedding_dim)
        self.norm1 = nn.LayerNorm(config.embedding_dim)
        self.norm2 = nn.LayerNorm(config.embedding_dim)

    def forward(self, frames: Tensor, only: slice = ALL) -> Tensor:
        """Return the frames in `only` of the next (batch, frames, embedding)."""
        frames = frames[:, only] + self.self_attn(self.norm1(frames), only)
        hidden = F.gelu(self.linear1(self.norm2(frames)))
        answer: Tensor = frames + self.linear2(hidden)
        return answer


class TransformerEncoder(nn.Module):
    """Layers one after the other."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        first = TransformerEncoderLayer(config)
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(config.num_layers))
        # Initialised again, each by itself, in the order of earlier versions.
        for module in self.modules():
            if isinstance(module, SelfAttention | nn.Linear):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, SelfAttention):
                nn.init.zeros_(module.out_proj.bias)

    def forward(self, frames: Tensor, only: slice) -> Tensor:
        """Return the frames in `only` of the next (batch, frames, embedding)."""
        *before, last = self.layers
        for layer in before:
            frames = layer(frames)
        answer: Tensor = last(frames, only)
        return answer


class Transformer(Backbone):
    """Full attention over the frames of a window, exact GELU, no dropout."""

    Config = TransformerConfig
    input_layer = "frame_embedder"
    fsdp_layers = (TransformerEncoderLayer.__name__,)

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.frame_embedder = nn.Linear(config.feature_dim, config.embedding_dim)
        self.pos_embedder = PositionEmbedder(config.max_length, config.embedding_dim)
        self.transformer_encoder = TransformerEncoder(config)
        self.layer_norm = nn.LayerNorm(config.embedding_dim)

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows (batch, frames, features) into embeddings (batch, frames, embedding)."""
        return self._embed(windows, ALL)

    def frame_embedding(self, windows: Tensor, frame: int) -> Tensor:
        """Return the embedding of one frame; the last layer computes only that one."""
        frame %= windows.shape[1]
        return self._embed(windows, slice(frame, frame + 1))[:, 0]

    def _embed(self, windows: Tensor, only: slice) -> Tensor:
        frames = self.pos_embedder(unrounded(self.frame_embedder, windows))
        embeddings: Tensor = self.layer_norm(self.transformer_encoder(frames, only))
        return embeddings


BACKBONE = Transformer
