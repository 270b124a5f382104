"""One setting of the C library's allocator that training on a CPU gains from."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # numbers of mallopt(3)
KEEP_BYTES = 2**30
LARGEST_BYTES = 32 * 2**20  # glibc takes no larger one


def keep_freed_memory() -> bool:
    """Let the allocator keep up to 1 GiB that was freed instead of giving it back at once.

    A training step frees and asks again for the same batches. By default glibc hands such blocks
    back to the system, which must clear every page of them again. What it costs is measured by
    benchmarks/sampling.py with and without --default_allocator.

    Returns
    -------
    bool
        Whether it was set; other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES) and libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    )
