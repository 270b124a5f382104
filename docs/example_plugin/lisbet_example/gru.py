"""A backbone: gated recurrent units."""

from pydantic import Field
from torch import Tensor, nn

from lisbet.models.backbones import Backbone, BackboneConfig


class GRUConfig(BackboneConfig):
    """Sizes of the network; they become options of --set: backbone.hidden_dim=…."""

    hidden_dim: int = Field(64, ge=1)
    num_layers: int = Field(1, ge=1)


class GRU(Backbone):
    """Frames pass the GRU forward in time, and are projected to embeddings."""

    Config = GRUConfig

    def __init__(self, config: GRUConfig) -> None:
        super().__init__()
        self.gru = nn.GRU(
            config.feature_dim, config.hidden_dim, config.num_layers, batch_first=True
        )
        self.output_proj = nn.Linear(config.hidden_dim, config.embedding_dim)

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows (batch, frames, features) into embeddings (batch, frames, embedding)."""
        states, _ = self.gru(windows)
        return self.output_proj(states)
