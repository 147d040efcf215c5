"""How SIGTERM (pre-emption) and SIGINT (Ctrl-C) end a run: between two steps, with a checkpoint."""

import contextlib
import itertools
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
# JAX has all processes stop at the count after the greatest with which one of them has asked, and takes it for 0 where
# none has asked yet. So the counts start at 1, and not at the step of a resumed run.
_asked = itertools.count(1)


def make_interruption(signum: int, step: int) -> Interrupted:
    """The error that ends a run after a step because of a signal."""
    name = signal.Signals(signum).name
    return Interrupted(f"{name}: stopped after step {step}; run the same command to resume from it.", 128 + signum)


class Watch:
    """Remembers the signal that asks a run to end, from `begin` on: before the first step there is nothing to save."""

    def __init__(self) -> None:
        self._signum: int | None = None

    def begin(self) -> None:
        """Start to listen: the first signal is remembered, the second ends the process at once."""
        if _is_main_thread():
            signal.signal(signal.SIGINT, self._remember)
            if not processes.several():
                signal.signal(signal.SIGTERM, self._remember)

    def asked(self) -> int | None:
        """The signal that asks the run to end after this step; None if there is none.

        Several processes agree on the step, which may come one or more steps after the signal. Each of them calls this
        equally often.
        """
        if not processes.several():
            return self._signum
        # JAX handles SIGTERM there.
        reached = multihost_utils.reached_preemption_sync_point(next(_asked))
        return self._signum or signal.SIGTERM if reached else None

    def _remember(self, signum: int, _: FrameType | None) -> None:
        self._signum = signum
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if processes.several():
            os.kill(os.getpid(), signal.SIGTERM)  # JAX's handler takes it
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _say(f"{signal.Signals(signum).name}: saving after this step; send it again to end at once.")


@contextlib.contextmanager
def watch_signals() -> Iterator[Watch]:
    """A `Watch` for the training loop; on exit the previous signal handlers are restored."""
    if not _is_main_thread():  # only the main thread receives signals
        yield Watch()
        return
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python runs no handler while the first step compiles
    try:
        yield Watch()
    finally:
        for signum, handler in before.items():
            if not (processes.several() and signum == signal.SIGTERM):
                signal.signal(signum, handler)


@contextlib.contextmanager
def exit_on_signal(step: int) -> Iterator[None]:
    """End the process on SIGTERM and SIGINT, with a message and the signal's exit status.

    Use it once all steps are taken and saved. A signal that already has a handler, such as SIGINT in a notebook, keeps
    it. The process ends directly, because libraries' callbacks may swallow an exception that a handler raises.

    Args:
      step: steps taken, for the message.
    """

    def end(signum: int, _: FrameType | None) -> None:
        stopped = make_interruption(signum, step)
        _say(str(stopped))
        os._exit(stopped.status)

    # JAX's own handler, in a job of several processes, reads as None. All processes but the first wait in C++, where
    # Python runs no handler, so they take the default action.
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


def _say(line: str) -> None:
    """Print a line from a signal handler, which may have interrupted a print: Python allows no print within another."""
    try:
        os.write(sys.stderr.fileno(), f"{line}\n".encode())
    except (OSError, ValueError):  # a stderr without a file, as in a notebook
        print(line, file=sys.stderr, flush=True)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
