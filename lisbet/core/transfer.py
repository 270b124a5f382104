"""Bring arrays to the training device without waiting for it."""

import numpy as np
import torch
from torch import Tensor


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to a device; on a CPU, share its memory.

    A copy to a GPU is queued behind the work that the GPU has, from memory that the system cannot
    move (pinned), so that this process continues at once. PyTorch keeps that memory until the copy
    is done.

    Parameters
    ----------
    values : ndarray
        Any shape. It may be changed afterwards only if `device` is a GPU.
    device : torch.device
        Where to.
    """
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
