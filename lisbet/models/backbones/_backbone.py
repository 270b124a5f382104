"""The interface of a backbone."""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from lisbet.core.config import LARGEST_SIZE, Config


class BackboneConfig(Config):
    """Sizes that every backbone has.

    Attributes
    ----------
    derived : set of str
        Fields that follow from recordings and window; users cannot set them.
    """

    feature_dim: int = Field(ge=1, le=LARGEST_SIZE)
    embedding_dim: int = Field(32, ge=1, le=LARGEST_SIZE)

    derived: ClassVar[frozenset[str]] = frozenset({"feature_dim"})

    @property
    def longest_window(self) -> int | None:
        """Most frames that a window may have; None if there is no limit."""
        return None

    @property
    def head_hidden_dim(self) -> int:
        """Size of the hidden layer of the task heads."""
        return self.embedding_dim

    @classmethod
    def for_window(cls, feature_dim: int, window_size: int, **settings: object) -> Self:
        """Make the configuration for windows of this size."""
        del window_size  # most backbones take windows of any size
        return cls(feature_dim=feature_dim, **settings)


class Backbone(nn.Module, ABC):
    """A network from windows to embeddings.

    Attributes
    ----------
    Config : type of BackboneConfig
        Its sizes; their defaults are the preset ``<name>-base``.
    fsdp_layers : tuple of str
        Names of the classes of its layers that FSDP shards one by one; without any, FSDP shards
        the network as a whole.
    input_layer : str or None
        Name of the linear layer that alone takes the features of each frame, by themselves; None
        if there is none. ``--condition_input`` needs it.
    """

    Config: ClassVar[type[BackboneConfig]]
    fsdp_layers: ClassVar[tuple[str, ...]] = ()
    input_layer: ClassVar[str | None] = None

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


def unrounded(layer: nn.Linear, windows: Tensor) -> Tensor:
    """Apply the first layer of a backbone in the precision of its weights, also under autocast.

    In bfloat16, coordinates between 0.5 and 1 would be rounded to 1/256 of the arena, which is
    more than animals move from frame to frame.
    """
    device = windows.device.type
    rounded = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False) if rounded else nullcontext():
        frames: Tensor = layer(windows.to(layer.weight.dtype) if rounded else windows)
    return frames
