"""Whether torch.compile works on this machine."""

import logging

import torch

log = logging.getLogger(__name__)


def can_compile(device: torch.device) -> bool:
    """Compile a small function for a device, and warn with the reason if that fails.

    A compiler or a driver may be missing. The network would find out in the middle of its first
    step, where PyTorch cannot continue without.

    Parameters
    ----------
    device : torch.device
        Where the network is going to be.
    """
    torch._dynamo.reset()
    values = torch.ones(8, device=device, requires_grad=True)
    try:
        torch.compile(lambda x: (x.sin() * x).sum(), backend="inductor")(values).backward()
    except Exception as error:  # whatever the compiler, its driver or its libraries raise
        reason = str(error).strip().splitlines() or [""]
        log.warning(
            "--compile: the network is not compiled, and training continues without: %s: %s",
            type(error).__name__,
            reason[0],
        )
        return False
    return True
