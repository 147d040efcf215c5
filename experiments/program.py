"""What the programs that take up a finished run share: their options, and errors of one line."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from contrastive_jax.errors import MissingExtraError, UsageError


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that say which encoder of which run."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=description, allow_abbrev=False)
    parser.add_argument("--workdir", required=True, help="the folder of the run, which may be going on")
    parser.add_argument("--step", type=int, help="of the checkpoint (the last)")
    parser.add_argument("--momentum", action="store_true", help="take the momentum encoder that the run keeps")
    return parser


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run a program; an error that it foresees is a line each and status 2."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would end in a traceback
    try:
        from contrastive_jax.jobs.machine import storage

        storage.silence_repeated_errors()
        main(sys.argv[1:])
    except (UsageError, MissingExtraError) as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever reads the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
