"""The published LISBET backbone: a pre-norm transformer encoder over the frames of a window."""

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lisbet.config import LARGEST_SIZE, MOST_LAYERS
from lisbet.models.backbones._backbone import Backbone, BackboneConfig

POSITION_STD = 0.02
"""Spread of the initial position embedding, as in BERT (https://arxiv.org/abs/1810.04805)."""


class TransformerConfig(BackboneConfig):
    """Sizes of a transformer."""

    hidden_dim: int = Field(128, ge=1, le=LARGEST_SIZE)
    num_heads: int = Field(4, ge=1, le=LARGEST_SIZE)
    num_layers: int = Field(4, ge=1, le=MOST_LAYERS)
    max_length: int = Field(200, ge=1, le=LARGEST_SIZE)

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
        self.pos_emb = nn.Parameter(POSITION_STD * torch.randn(max_length, embedding_dim))

    def forward(self, frames: Tensor) -> Tensor:
        """Add the vectors to frames (batch, frames, embedding)."""
        return frames + self.pos_emb[: frames.shape[1]]


class Transformer(Backbone):
    """Full attention over the frames of a window, exact GELU, no dropout."""

    Config = TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.frame_embedder = nn.Linear(config.feature_dim, config.embedding_dim)
        self.pos_embedder = PositionEmbedder(config.max_length, config.embedding_dim)
        layer = nn.TransformerEncoderLayer(
            d_model=config.embedding_dim,
            nhead=config.num_heads,
            dim_feedforward=config.hidden_dim,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer_encoder = nn.TransformerEncoder(
            layer, config.num_layers, enable_nested_tensor=False
        )
        self.layer_norm = nn.LayerNorm(config.embedding_dim)
        self._draw_each_layer()

    def _draw_each_layer(self) -> None:
        """Draw every layer anew: nn.TransformerEncoder starts them as copies of one."""
        for module in self.transformer_encoder.modules():
            if isinstance(module, nn.MultiheadAttention):
                module._reset_parameters()
            elif isinstance(module, nn.Linear):
                module.reset_parameters()
        for module in self.transformer_encoder.modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.zeros_(module.out_proj.bias)

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows (batch, frames, features) into embeddings (batch, frames, embedding)."""
        frames = self.pos_embedder(self.frame_embedder(windows))
        embeddings: Tensor = self.layer_norm(self.transformer_encoder(frames))
        return embeddings


BACKBONE = Transformer
