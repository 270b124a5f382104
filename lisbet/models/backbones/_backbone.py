"""What a backbone has to offer."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from pydantic import Field
from torch import Tensor, nn

from lisbet.core.config import LARGEST_SIZE, Config


class BackboneConfig(Config):
    """Sizes that every backbone has."""

    feature_dim: int = Field(ge=1, le=LARGEST_SIZE)
    embedding_dim: int = Field(32, ge=1, le=LARGEST_SIZE)

    @classmethod
    def for_window(cls, feature_dim: int, window_size: int, **settings: object) -> Self:
        """Make the configuration for windows of this size."""
        del window_size  # most backbones take windows of any size
        return cls(feature_dim=feature_dim, **settings)


class Backbone(nn.Module, ABC):
    """A network from windows to embeddings."""

    Config: ClassVar[type[BackboneConfig]]

    @abstractmethod
    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows (batch, frames, features) into embeddings (batch, frames, embedding)."""

    def frame_embedding(self, windows: Tensor, frame: int) -> Tensor:
        """Return the embedding of one frame of each window.

        Parameters
        ----------
        windows : Tensor
            (batch, frames, features).
        frame : int
            Its index; negative ones count from the end.

        Returns
        -------
        Tensor
            (batch, embedding). A backbone may compute it without those of the other frames.
        """
        embedding: Tensor = self(windows)[:, frame]
        return embedding
