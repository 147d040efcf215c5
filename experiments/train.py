"""Train an encoder contrastively, watch the similarities, evaluate it.

    python -m experiments.train --config=configs/digits.py --workdir=runs/digits

Any field can be overridden: --config.loss.kwargs.temperature=0.1. A run's own config.json serves as a preset too.

On Cloud TPU, SLURM and Kubernetes the processes of a job find each other (see launch/); elsewhere tell each of them:

    ... --coordinator=HOST:PORT --num_processes=2 --process_id=0
"""

import logging
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import config_flags

from contrastive_jax.errors import Interrupted, SourceError, UsageError

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The preset, a file of configs/.")
flags.DEFINE_string("workdir", None, "Where the run leaves what it makes; the same again resumes it.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where a job has several processes.")
flags.DEFINE_integer("num_processes", None, "How many processes the job has.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.DEFINE_integer("steps", None, "Stop after so many steps, leaving all that a whole run leaves.")


def parse(argv: list[str]) -> str | None:
    """Parse the command line; all that is wrong with it, a line each, if something is."""
    from contrastive_jax.jobs import config, validation
    from experiments import saved

    options = {name: value for name, _, value in (a.lstrip("-").partition("=") for a in argv[1:])}
    preset = Path(options.get("config", ""))
    if "config" in options and not preset.is_file():
        known = ", ".join(sorted(str(p) for p in Path("configs").glob("*.py") if p.stem != "__init__"))
        return f"--config={preset}: there is no such preset; here are {known or 'none (run from the repository)'}."
    # The field is a number, of which 0 is the whole training set; the command line, which the overrides are read from
    # again, may say so.
    argv = [a.replace("config.contrast_size=full", "config.contrast_size=0") for a in argv]
    argv, faults = _split_faults(argv, config.override_fault)
    if preset.suffix == ".json":
        try:
            saved.get_config(preset)
        except UsageError as error:  # which the flag would bury in a traceback
            return str(error)
        argv = [a.replace(f"config={preset}", f"config={saved.__file__}:{preset}") for a in argv]
    sys.argv = argv
    try:
        rest = FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        return "\n".join([*faults, " ".join(str(error).split())])
    if len(rest) > 1:
        faults.append(f"{rest[1]!r} is not an option; see --help.")
    for name in ("config", "workdir"):
        if FLAGS[name].value is None:
            faults.append(f"--{name} is missing; for example --config=configs/digits.py --workdir=runs/digits.")
    if faults and FLAGS.config is not None:
        faults += dict(validation.field_faults(FLAGS.config)).values()
    return "\n".join(faults) or None


def _split_faults(argv, fault_of):
    """The options but those overrides of the configuration that are at fault, and what is wrong with these."""
    good, faults = [], []
    for option in argv:
        name, given, value = option.lstrip("-").partition("=")
        fault = fault_of(name.removeprefix("config."), value) if given and name.startswith("config.") else None
        (faults if fault else good).append(fault or option)
    return good, faults


def fail(message: object, process: str = "") -> int:
    """Say what is wrong, a line each."""
    for line in str(message).splitlines():
        print(f"{process}error: {line}", file=sys.stderr)
    return 2


def tell_failures_once() -> None:
    """Keep Orbax and TensorStore, which raise what fails first, from telling the screen besides of all that fails."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(unraisable):
        # What TensorStore wants to say of each further array to an event loop, which is gone by then or never was.
        said = str(unraisable.exc_value)
        if said != "Event loop is closed" and "EventLoop' object has no attribute" not in said:
            before(unraisable)

    sys.unraisablehook = hook


def main(argv: list[str]) -> int:
    if problem := parse(argv):
        return fail(problem)
    tell_failures_once()
    from contrastive_jax.jobs.machine import processes

    try:
        processes.start(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    except UsageError as error:
        return fail(error)
    return train()


def train() -> int:
    """Run what the flags ask for; the exit status."""
    import jax

    from contrastive_jax.jobs import run
    from contrastive_jax.jobs.machine import processes

    name = f"process {jax.process_index()}: " if processes.several() else ""
    try:
        run.run(FLAGS.config, FLAGS.workdir, steps=FLAGS.steps)
    except (UsageError, SourceError) as error:
        return fail(error, name)
    except Interrupted as stopped:
        print(f"{name}{stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except jax.errors.JaxRuntimeError as error:
        if not processes.several():
            raise
        traceback.print_exc()
        return fail(processes.explain(error), name)
    if processes.is_first():
        print(f"Pictures and numbers are in {FLAGS.workdir}.")
    return 0


def leave(status: int) -> NoReturn:
    """End this process; after a failure at once, without waiting for other processes or for what fails on its way."""
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would end in a traceback, or in no end at all
    leave(main(sys.argv))
