"""Small jobs for the tests of jobs and of training."""

from configs import smoke
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import parts, run, validation
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.jobs.workdir import claim_workdir


def config(**overrides):
    """The smoke preset with dotted fields replaced, e.g. `**{"loss.name": "dcl"}`."""
    return set_fields(smoke.get_config(), overrides)


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


def train(job_config, workdir, steps, own=parts.NONE):
    """Take steps without evaluating; the state after them."""
    job, keep = job_lib.prepare(job_config, workdir, own=own), job_config.checkpoint.keep
    with claim_workdir(job), Checkpoints(workdir / "checkpoints", keep=keep) as checkpoints:
        return run.train(job, checkpoints, steps)[0]
