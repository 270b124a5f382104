"""A recurrent backbone: LSTM layers over the frames of a window."""

from pydantic import Field
from torch import Tensor, nn

from lisbet.core.config import LARGEST_SIZE, MOST_LAYERS
from lisbet.models.backbones._backbone import Backbone, BackboneConfig, unrounded


class LSTMConfig(BackboneConfig):
    """Sizes of an LSTM."""

    hidden_dim: int = Field(64, ge=1, le=LARGEST_SIZE)
    num_layers: int = Field(2, ge=1, le=MOST_LAYERS)

    @property
    def head_hidden_dim(self) -> int:
        """Size of the hidden layer of the task heads."""
        return self.hidden_dim


class LSTM(Backbone):
    """Frames are projected, pass the LSTM forward in time, and are projected to embeddings."""

    Config = LSTMConfig
    input_layer = "input_proj"

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(config.feature_dim, config.embedding_dim)
        self.lstm = nn.LSTM(
            config.embedding_dim, config.hidden_dim, config.num_layers, batch_first=True
        )
        self.output_proj = nn.Linear(config.hidden_dim, config.embedding_dim)

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows (batch, frames, features) into embeddings (batch, frames, embedding)."""
        states, _ = self.lstm(unrounded(self.input_proj, windows))
        embeddings: Tensor = self.output_proj(states)
        return embeddings


BACKBONE = LSTM
