"""Small jobs for the tests of training."""

from configs import smoke
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import run
from contrastive_jax.jobs.machine.checkpoints import Checkpoints


def config(**overrides):
    """The smoke preset with dotted fields replaced, e.g. `**{"loss.name": "dcl"}`."""
    result = smoke.get_config()
    for path, value in overrides.items():
        result.update_from_flattened_dict({path: value})
    return result


def train(job_config, workdir, steps):
    """Take steps without evaluating; the state after them."""
    job, keep = job_lib.prepare(job_config, workdir), job_config.checkpoint.keep
    with job_lib.claim_workdir(job), Checkpoints(workdir / "checkpoints", keep=keep) as checkpoints:
        return run.train(job, checkpoints, steps)[0]
