"""Memory of the process that the C library keeps for the next step."""

import ctypes
import sys

import jax

# glibc's malloc.h: the parameters of mallopt(3), and the values that they get.
_OPTIONS = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads, since those of other threads are given back whenever they are empty
    -4: 0,  # M_MMAP_MAX: large arrays from the heap too, not from a mapping of their own
    -1: -1,  # M_TRIM_THRESHOLD: never give back the end of the heap
}


def keep_freed_memory() -> bool:
    """Keep memory that a step frees, where the arrays of a step lie in it: on CPUs, under Linux with glibc.

    By default glibc gives large freed blocks back to the kernel, which clears every page of them again for the next
    step. The process then holds on to the most memory that it ever needed.

    Returns:
      Whether the C library took the settings; False elsewhere, where nothing is changed.
    """
    if not sys.platform.startswith("linux") or jax.default_backend() != "cpu":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(option, value) for option, value in _OPTIONS.items())
