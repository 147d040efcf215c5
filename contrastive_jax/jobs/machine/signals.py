"""Ending a run when asked to, by SIGTERM (pre-emption) or SIGINT (Ctrl-C): between two steps, with a checkpoint."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from jax.experimental import multihost_utils

from contrastive_jax.errors import Interrupted
from contrastive_jax.jobs.machine import processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def make_interruption(signum: int, step: int) -> Interrupted:
    """The error that ends a run after a step, asked to by a signal."""
    name = signal.Signals(signum).name
    return Interrupted(f"{name}: stopped after step {step}; the same command goes on from it.", 128 + signum)


class Watch:
    """Whether this run has been asked to end. Only from `begin` on: before a step is done there is nothing to save."""

    def __init__(self) -> None:
        self._signum: int | None = None

    def begin(self) -> None:
        """From here on the first signal is remembered, and the second ends the process at once."""
        if _is_main_thread():
            signal.signal(signal.SIGINT, self._remember)
            if not processes.several():
                signal.signal(signal.SIGTERM, self._remember)

    def asked(self, step: int) -> int | None:
        """The signal to end by after this step, if any; several processes agree, a step or more after one was asked."""
        # JAX has a handler of its own for SIGTERM where there are several, and lets them agree.
        if processes.several() and multihost_utils.reached_preemption_sync_point(step):
            return self._signum or signal.SIGTERM
        return None if processes.several() else self._signum

    def _remember(self, signum: int, _: FrameType | None) -> None:
        self._signum = signum
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if processes.several():
            os.kill(os.getpid(), signal.SIGTERM)  # to JAX's handler
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print(f"{signal.Signals(signum).name}: saving after this step; once more ends at once.", file=sys.stderr)


@contextlib.contextmanager
def watch_signals() -> Iterator[Watch]:
    """A `Watch` for the time of the training loop; afterwards signals mean what they did before."""
    if not _is_main_thread():  # which alone hears of signals
        yield Watch()
        return
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the first step compiles, Python hears of no signal
    try:
        yield Watch()
    finally:
        for signum, handler in before.items():
            if not (processes.several() and signum == signal.SIGTERM):
                signal.signal(signum, handler)


@contextlib.contextmanager
def exit_on_signal(step: int) -> Iterator[None]:
    """Once all steps are taken and saved, end the process at SIGTERM and SIGINT, with a line and the signal's status.

    A signal that this program has a handler for, as SIGINT in a notebook, is left to it. An exception would be no way
    to end: some of those that a handler raises get lost in libraries' callbacks.
    """

    def end(signum: int, _: FrameType | None) -> None:
        stopped = make_interruption(signum, step)
        print(stopped, file=sys.stderr, flush=True)
        os._exit(stopped.status)

    # None is the handler that JAX has where there are several processes. All but the first wait in C++, where no
    # handler in Python would be heard.
    heard = [signum for signum in _SIGNALS if signal.getsignal(signum) in (signal.SIG_DFL, None)]
    if not _is_main_thread():
        heard = []
    for signum in heard:
        signal.signal(signum, end if processes.is_first() else signal.SIG_DFL)
    try:
        yield
    finally:
        for signum in heard:
            signal.signal(signum, signal.SIG_DFL)


def _is_main_thread():
    return threading.current_thread() is threading.main_thread()
