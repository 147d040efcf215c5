"""What runs on TPUs and GPUs lowers for them on this machine: every loss in every implementation, and a whole step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import metrics, pairwise, spmd
from contrastive_jax.data import batches, sources
from contrastive_jax.training import step as step_lib
from tests.jobs.support import build, config
from tests.losses.table import ROWS
from tests.mappings import AXIS, MAPPINGS

DEVICES, M, D = 4, 8, 16
COLLECTIVE = {"dense": "all_gather", "blockwise": "all_gather", "ring": "collective_permute"}


def exported(fn, *arguments):
    """The lowered program for both platforms, which was found to be one for several devices."""
    result = jax.export.export(jax.jit(fn), platforms=("tpu", "cuda"))(*arguments)
    assert result.platforms == ("tpu", "cuda") and result.nr_devices == DEVICES
    return result.mlir_module()


@pytest.mark.parametrize("implementation", pairwise.IMPLEMENTATIONS)
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.variant])
def test_every_loss_and_its_gradient(name, implementation):
    row = ROWS[name]

    def local(u, v, *arrays):
        arrays = dict(zip(row.arrays(M), arrays, strict=True))
        options = {"axis_name": AXIS, "implementation": implementation}
        return jax.lax.pmean(row.fn(u, v, **options, **arrays, **row.kwargs, **row.form).mean(), AXIS)

    call = MAPPINGS["shard_map"](local, DEVICES)
    arrays = [jnp.asarray(x) for x in row.arrays(M).values()]
    u = v = jnp.zeros((M, D))
    text = exported(jax.grad(lambda u, v: call(u, v, *arrays, out=PartitionSpec()), argnums=(0, 1)), u, v)
    assert COLLECTIVE[implementation] in text


@pytest.mark.parametrize("implementation", pairwise.IMPLEMENTATIONS)
def test_the_distribution(implementation):
    def local(u, v):
        return metrics.similarity_distribution(u, v, axis_name=AXIS, implementation=implementation)

    call = MAPPINGS["shard_map"](local, DEVICES)
    u = jnp.zeros((M, D))
    assert COLLECTIVE[implementation] in exported(lambda u, v: call(u, v, out=PartitionSpec()), u, u)


@pytest.mark.parametrize(
    "overrides", [{}, {"model.kwargs.dtype": "bfloat16", "contrast_size": 128}], ids=["direct", "cached"]
)
def test_a_whole_step(overrides):
    job_config = config(**overrides)
    source = sources.load("digits", split="train")
    size = max(job_config.batch_size, job_config.contrast_size or 0)
    program, state = build(job_config, source, batches.BatchOrder(len(source), size, 0, "reshuffled"))
    images = source.take(np.arange(size))
    batch = {"image": images, "id": np.arange(size, dtype=np.int32)}
    mapped = spmd.map_step(
        lambda state, batch: step_lib.train_step(program, state, batch),
        parallelism="shard_map",
        devices=jax.devices()[:DEVICES],
    )
    with jax.numpy_dtype_promotion("standard"):  # which Optax needs
        text = exported(mapped.step, state, batch)
    assert "stablehlo.convolution" in text and "all_reduce" in text and "all_gather" in text
