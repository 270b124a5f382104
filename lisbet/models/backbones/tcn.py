"""A convolutional backbone: causal dilated convolutions, after Bai et al. (arXiv:1803.01271)."""

from typing import Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lisbet.core.config import LARGEST_SIZE, MOST_LAYERS
from lisbet.models.backbones._backbone import Backbone, BackboneConfig


class TCNConfig(BackboneConfig):
    """Sizes of a temporal convolutional network."""

    hidden_dim: int = Field(64, ge=1, le=LARGEST_SIZE)
    num_layers: int = Field(2, ge=1, le=MOST_LAYERS)
    kernel_size: int = Field(8, ge=1, le=LARGEST_SIZE)
    dilation_base: int = Field(16, ge=1, le=LARGEST_SIZE)
    dropout: float = Field(0.0, ge=0, lt=1)

    @property
    def head_hidden_dim(self) -> int:
        """Size of the hidden layer of the task heads."""
        return self.hidden_dim

    @model_validator(mode="after")
    def _looks_back_a_bounded_time(self) -> Self:
        longest = (self.kernel_size - 1) * self.dilation_base ** (self.num_layers - 1)
        if longest > LARGEST_SIZE:
            raise ValueError(
                f"{self.num_layers} layers of kernel_size {self.kernel_size} and dilation_base "
                f"{self.dilation_base} look back more than {LARGEST_SIZE} frames; use less of one"
            )
        return self


class Block(nn.Module):
    """Two causal convolutions of one dilation, and a residual."""

    def __init__(
        self, in_dim: int, out_dim: int, kernel_size: int, dilation: int, dropout: float
    ) -> None:
        super().__init__()
        self.padding = (kernel_size - 1) * dilation
        self.conv1 = nn.Conv1d(in_dim, out_dim, kernel_size, dilation=dilation)
        self.conv2 = nn.Conv1d(out_dim, out_dim, kernel_size, dilation=dilation)
        self.downsample = nn.Conv1d(in_dim, out_dim, 1) if in_dim != out_dim else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, series: Tensor) -> Tensor:
        """Turn (batch, in_dim, frames) into (batch, out_dim, frames)."""
        hidden = self.dropout(F.relu(self.conv1(F.pad(series, (self.padding, 0)))))
        hidden = self.dropout(F.relu(self.conv2(F.pad(hidden, (self.padding, 0)))))
        residual = series if self.downsample is None else self.downsample(series)
        return F.relu(hidden + residual)


class TCN(Backbone):
    """Block N has dilation dilation_base**N; widths are features, hidden …, embedding."""

    Config = TCNConfig

    def __init__(self, config: TCNConfig) -> None:
        super().__init__()
        widths = [config.feature_dim, *[config.hidden_dim] * (config.num_layers - 1)]
        widths.append(config.embedding_dim)
        self.network = nn.Sequential(
            *(
                Block(
                    widths[n],
                    widths[n + 1],
                    config.kernel_size,
                    config.dilation_base**n,
                    config.dropout,
                )
                for n in range(config.num_layers)
            )
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows (batch, frames, features) into embeddings (batch, frames, embedding)."""
        embeddings: Tensor = self.network(windows.transpose(1, 2)).transpose(1, 2)
        return embeddings


BACKBONE = TCN
