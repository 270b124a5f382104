"""The processes of one machine, which can share memory."""

import errno
import os
import socket
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from lisbet.distributed import environment

ZEROS = 2**24
"""Bytes of zeros that are written at a time where space cannot be reserved otherwise."""
READING = timedelta(days=1)
"""How long the others may wait for the one that reads; whether it is alive is seen otherwise."""


class Machine:
    """The processes of a machine, of which the first one leads. All of a run must make it.

    Attributes
    ----------
    leads : bool
        Whether this process is the first one of its machine.
    count : int
        How many there are on it.
    """

    def __init__(self) -> None:
        self.leads, self.count = True, 1
        self._group, self._leader = None, 0
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return
        names: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(names, _name())
        for name in dict.fromkeys(names):  # every process takes part in making every group
            ranks = [rank for rank, its in enumerate(names) if its == name]
            group = dist.new_group(ranks, backend="gloo", timeout=READING)
            if dist.get_rank() in ranks:
                self._group, self._leader = group, ranks[0]
                self.count = len(ranks)
        self.leads = dist.get_rank() == self._leader

    def broadcast(self, value: object = None) -> Any:
        """Return the value of the leading process. All processes of the machine must call it."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=self._leader, group=self._group)
        return box[0]

    def wait(self) -> None:
        """Wait for the other processes of the machine."""
        if self.count > 1:
            dist.barrier(group=self._group)


def reserve(handle: int, size: int) -> None:
    """Make an empty file `size` bytes of zeros long, with all of its space reserved.

    Parameters
    ----------
    handle : int
        Descriptor of the file, at its start.
    size : int
        Bytes.

    Raises
    ------
    OSError
        If there is not enough space.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise  # these two: the file system does not know how
    zeros = bytes(min(size, ZEROS))  # macOS
    for start in range(0, size, ZEROS):
        left = memoryview(zeros)[: size - start]
        while left:
            left = left[os.write(handle, left) :]
    return None


def _name() -> tuple[str, str]:
    """Name this machine; hosts in network namespaces share the boot, containers the name."""
    boot = "/proc/sys/kernel/random/boot_id"
    if not os.path.exists(boot):
        return socket.gethostname(), str(environment.rank() // environment.local_count())
    with open(boot) as stream:
        return socket.gethostname(), stream.read().strip()
