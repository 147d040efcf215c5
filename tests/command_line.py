"""The job's command line, called in the tests' own process."""

import shlex

from contrastive_jax.jobs import command_line


def parse(command, workdir):
    """The options of `python -m experiments.train ...`, with another workdir."""
    _, module, *arguments = shlex.split(command)[1:]
    assert module == "experiments.train"
    return command_line.parse([*arguments, f"--workdir={workdir}"])
