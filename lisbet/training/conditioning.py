"""Input conditioning: an affine map of the input of the network, folded into its first layer.

Coordinates in [0, 1] vary by 0.1 as animals move about the arena, and by 0.01 with their posture,
about means of 0.5. Training converges sooner if all of these have unit variance. The network is
trained on A(x - m) for the features x of a frame; as its first layer is linear, the weights that
are published are those of the network that takes x itself: weight·A, and bias - weight·A·m.

A first turns the coordinates by a fixed orthonormal matrix, so that along each axis of space there
are the mean of all points, the differences between the animals, and those between the keypoints of
each animal; then it divides each of them by its standard deviation.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lisbet.core.json_types import JsonDict
from lisbet.models.multitask import MultiTaskModel
from lisbet.training.datasets.sampler import EXAMPLES, Sampler

LEAST = 1e-3
"""A direction with a smaller standard deviation, in units of the arena, is not enlarged more."""
EVERY = 8
"""Of each window one frame in so many counts."""


@dataclass(frozen=True)
class Conditioning:
    """An affine map of the features of a frame.

    Parameters
    ----------
    shape : tuple of int
        Individuals, keypoints and axes of space.
    mean : Tensor
        (features,), float32: m.
    std : Tensor
        (features,), float32: what the turned coordinates are divided by.
    """

    shape: tuple[int, int, int]
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, sampler: Sampler) -> "Conditioning":
        """Return the map for the training input, as augmentation and missing points leave it."""
        rows, count = slice(0, sampler.batch_size), 0
        features = sampler.bank(next(iter(sampler.tasks)), 0, 0).features
        total = torch.zeros(features.size, dtype=torch.float64)
        squares = torch.zeros(features.size, features.size, dtype=torch.float64)
        for step in range(min(sampler.steps, -(-EXAMPLES // sampler.batch_size))):
            for windows, _ in sampler.batch(0, step, rows).values():
                frames = windows[:, ::EVERY].flatten(2).flatten(0, 1).cpu().double()
                count += len(frames)
                total += frames.sum(0)
                squares += frames.T @ frames
        mean = total / count
        turn = contrasts(features.shape)
        variance = (turn @ (squares / count - torch.outer(mean, mean)) @ turn.T).diagonal()
        std = variance.clamp(min=LEAST**2).sqrt()
        return cls(features.shape, mean.float(), std.float())

    @classmethod
    def from_state(cls, state: JsonDict) -> "Conditioning":
        """Return what `state_dict` was made of."""
        individuals, keypoints, space = state["shape"]
        mean, std = (torch.tensor(state[name]) for name in ("mean", "std"))
        return cls((individuals, keypoints, space), mean, std)

    def state_dict(self) -> JsonDict:
        """Return the map as numbers."""
        return {"shape": list(self.shape), "mean": self.mean.tolist(), "std": self.std.tolist()}

    @cached_property
    def matrix(self) -> Tensor:
        """A: (features, features), float64."""
        return contrasts(self.shape) / self.std.double()[:, None]

    @cached_property
    def _copies(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        """Mean and transposed matrix on each device: a copy at each step would wait for it."""
        return {}

    def apply(self, windows: Tensor) -> Tensor:
        """Map windows (B, W, …) of features; their shape stays."""
        device = windows.device
        if device not in self._copies:
            self._copies[device] = self.mean.to(device), self.matrix.float().T.to(device)
        mean, matrix = self._copies[device]
        return ((windows.flatten(2) - mean) @ matrix).view_as(windows)

    def folded_weights(self, weights: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
        """Return a state dict with the map folded into the input layer of the backbone.

        Parameters
        ----------
        weights : dict of Tensor
            Of a network that takes mapped input.
        layer : str
            See `Backbone.input_layer`.
        """
        weight, bias = _of_layer(weights, layer)
        whole = weight @ self.matrix
        return weights | _named(layer, whole, bias - whole @ self.mean.double())

    def unfolded_weights(self, weights: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
        """Return a state dict of a network that takes mapped input: undo `folded_weights`."""
        weight, bias = _of_layer(weights, layer)
        own = weight @ contrasts(self.shape).T * self.std.double()
        return weights | _named(layer, own, bias + weight @ self.mean.double())

    def unfold(self, model: MultiTaskModel) -> None:
        """Let a network take mapped input, in place."""
        layer = model.backbone.input_layer
        assert layer is not None
        model.load_state_dict(self.unfolded_weights(model.state_dict(), layer))


def _of_layer(weights: dict[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer of the backbone, in float64 on the CPU."""
    weight, bias = (
        weights[f"backbone.{layer}.{name}"].cpu().double() for name in ("weight", "bias")
    )
    return weight, bias


def _named(layer: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"backbone.{layer}.weight": weight.float(), f"backbone.{layer}.bias": bias.float()}


def contrasts(shape: tuple[int, int, int]) -> Tensor:
    """Return the orthonormal matrix that turns coordinates into means and differences.

    Parameters
    ----------
    shape : tuple of int
        Individuals, keypoints and axes of space.

    Returns
    -------
    Tensor
        (features, features), float64. For each axis of space: the mean of all points, differences
        between the means of the individuals, and differences between the keypoints of each.
    """
    individuals, keypoints, space = shape
    group, body = helmert(individuals), helmert(keypoints)
    means = torch.kron(group, body[:1])
    within = torch.kron(torch.eye(individuals, dtype=torch.float64), body[1:])
    return torch.kron(torch.cat([means, within]), torch.eye(space, dtype=torch.float64))


def helmert(count: int) -> Tensor:
    """Return the orthonormal Helmert matrix: a mean, and each value less those before it.

    Examples
    --------
    >>> helmert(2)
    tensor([[ 0.7071,  0.7071],
            [ 0.7071, -0.7071]], dtype=torch.float64)
    """
    rows = [torch.ones(count, dtype=torch.float64)]
    for place in range(1, count):
        row = torch.zeros(count, dtype=torch.float64)
        row[:place], row[place] = 1, -place
        rows.append(row)
    return torch.stack([row / row.norm() for row in rows])
