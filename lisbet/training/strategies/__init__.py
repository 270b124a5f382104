"""What one device, DDP, DeepSpeed and FSDP do differently; nothing else tests for a strategy.

State is saved in one of three forms. ``whole``: one file that any process can read. ``sharded``: a
torch distributed checkpoint, which any number of processes can read. ``deepspeed``: DeepSpeed's own
files, which the same number of processes can read.
"""

from accelerate import Accelerator
from accelerate.utils import DistributedType

from lisbet.training.checkpoint.manifest import DEEPSPEED, SHARDED, WHOLE
from lisbet.training.strategies.base import Strategy
from lisbet.training.strategies.deepspeed import DeepSpeed
from lisbet.training.strategies.fsdp import FSDP
from lisbet.training.strategies.replicated import Replicated

BY_FORM: dict[str, type[Strategy]] = {WHOLE: Replicated, SHARDED: FSDP, DEEPSPEED: DeepSpeed}
"""The strategy that writes each form of a state, and knows how to read it."""


def strategy_of(accelerator: Accelerator) -> Strategy:
    """Return the strategy that the processes were started with."""
    kinds: dict[DistributedType, type[Strategy]] = {
        DistributedType.DEEPSPEED: DeepSpeed,
        DistributedType.FSDP: FSDP,
    }
    return kinds.get(accelerator.distributed_type, Replicated)(accelerator)


__all__ = ["BY_FORM", "Strategy", "strategy_of"]
