"""Large pages for the arrays that XLA takes from the C library, on a CPU those of every step."""

import os
import sys

_VARIABLE, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def restart_with_large_pages() -> None:
    """Start this program again with large pages for `malloc`, unless it has been told about them: under Linux.

    XLA takes the temporaries of a step from glibc, which returns them to the kernel after it; the kernel then clears
    every page again. With pages of 2 MB this costs a tenth. glibc (2.35 or newer; others ignore it) reads the setting
    when a process starts. The process keeps its number, its arguments and its folder.

    To run without them, set `GLIBC_TUNABLES=glibc.malloc.hugetlb=0`.
    """
    tunables = os.environ.get(_VARIABLE, "")
    if not sys.platform.startswith("linux") or not sys.executable or _TUNABLE in tunables:
        return
    environment = os.environ | {_VARIABLE: ":".join(filter(None, (tunables, f"{_TUNABLE}=1")))}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
