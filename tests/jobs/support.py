"""Small jobs for the tests of jobs and of training."""

import contextlib
import os
import re

import pytest

from configs import smoke
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import parts, run, validation
from contrastive_jax.jobs.logs import neighbour_pictures, pictures, view_pictures
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.jobs.workdir import claim_workdir

# Two layers, for what does not depend on the model: they compile in half the time of a ResNet's.
MLP = {"model.name": "mlp", "model.kwargs.hidden": (16,)}
# As little evaluation as there can be and no pictures, for what does not depend on them.
QUICK = {"evaluation.raw_pixels": False, "evaluation.probe_epochs": 1, "evaluation.draws": 1, "log.pictures": False}
_DRAW = {
    view_pictures: ("save_views_picture", view_pictures.save_views_picture),
    neighbour_pictures: ("save_neighbours_picture", neighbour_pictures.save_neighbours_picture),
    pictures: ("save_similarity_picture", pictures.save_similarity_picture),
}


@contextlib.contextmanager
def drawing(really: bool):
    """Draw the pictures of runs in this process, or leave them out: drawing takes most of the time of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        for module, (name, draw) in _DRAW.items():
            patch.setattr(module, name, draw if really else lambda *_, **__: None)
        yield


def config(**overrides):
    """The smoke preset with dotted fields replaced, e.g. `**{"loss.name": "dcl"}`."""
    return set_fields(smoke.get_config(), overrides)


def small(**overrides):
    """The same with the smallest model."""
    return config(**MLP | overrides)


def as_options(overrides):
    """Dotted fields as options of the command line."""
    return [f"--config.{name}={value}" for name, value in overrides.items()]


def flags(devices):
    """XLA's flags for a process that a test starts: those of conftest.py, for so many devices."""
    return re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])


def set_fields(result, values):
    """A configuration with dotted fields set; those that name a part drop the arguments of the part before."""
    for path, value in sorted(values.items(), key=lambda item: ".kwargs." in item[0]):
        node, (*sections, leaf) = result, path.split(".")
        for section in sections:
            node = node[section]
        for kind in parts.KINDS:
            if kind.name == path and value != node[leaf]:
                for name in list(parts.section(result, kind)):
                    del parts.section(result, kind)[name]
        with node.ignore_type():
            node[leaf] = value
    return result


def check(job_config, own=parts.NONE, **options):
    """`validation.check` with the parts that the configuration names."""
    validation.check(job_config, parts.resolve(job_config, own), **options)


def build(job_config, source, order, own=parts.NONE):
    """The program and the first state of a configuration, on given images."""
    return job_lib.build(job_config, parts.resolve(job_config, own), source, order)


def train(job_config, workdir, steps, own=parts.NONE, job=None):
    """Take steps without evaluating; the state after them. A job of this configuration need not be traced again."""
    job = job_lib.prepare(job_config, workdir, own=own) if job is None else job._replace(workdir=workdir)
    keep = job_config.checkpoint.keep
    with claim_workdir(job), Checkpoints(workdir / "checkpoints", keep=keep) as checkpoints:
        return run.train(job, checkpoints, steps)[0]


def save_start(job_config, workdir, own=parts.NONE):
    """A run that was stopped before its first step: its workdir with a checkpoint, of which nothing was compiled."""
    job = job_lib.prepare(job_config, workdir, own=own)
    with claim_workdir(job), Checkpoints(workdir / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(job.initial)
        checkpoints.wait()
    return job
