"""Ids, labels and the like: no two that differ are ever taken for equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses, metrics, pairwise
from tests.losses import oracles
from tests.losses.table import ROWS
from tests.losses.test_values import batch

WIDE = np.array([5, 5 + 2**32, 7, 7 + 2**33, 9, 11])  # six instances, in 32 bits four
M = len(WIDE)
EACH = [*ROWS, "moco_queue", "sup_con_labels", "distribution", "logsumexp", "total", "candidates"]
TOO_WIDE = r"expected {name} that fit {dtype}, got {of} from \d+ to \d+; renumber them.*np.unique\({name}"


def call(name, ids, implementation):
    """The name of what gets the ids, and the function's value."""
    u, v = batch(M, 4)
    options = {"implementation": implementation}
    if name in ROWS:
        row = ROWS[name]
        return "ids", lambda: row.fn(u, v, ids=ids, **row.arrays(M), **row.kwargs, **row.form, **options)
    few = np.arange(M)
    return {
        "moco_queue": ("queue_ids", lambda: losses.moco(u, v, u, ids=few, queue_ids=ids, **options)),
        "sup_con_labels": ("labels", lambda: losses.sup_con(u, v, ids, **options)),
        "distribution": ("ids", lambda: metrics.similarity_distribution(u, v, ids=ids, **options)),
        "logsumexp": ("anchor_ids", lambda: pairwise.logsumexp(u, v, anchor_ids=ids, candidate_ids=ids, **options)),
        "total": ("anchor_ids", lambda: pairwise.total(jnp.exp, u, v, anchor_ids=ids, candidate_ids=ids, **options)),
        "candidates": (
            "candidate_ids",
            lambda: pairwise.logsumexp(u, v, anchor_ids=few, candidate_ids=ids, **options),
        ),
    }[name]


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
@pytest.mark.parametrize("name", EACH)
def test_ids_that_32_bits_do_not_hold_are_refused(name, implementation):
    for ids, dtype in ((WIDE, "int32"), (WIDE.astype(np.uint64), "uint32"), (-WIDE, "int32")):
        argument, fn = call(name, ids, implementation)
        message = TOO_WIDE.format(name=argument, dtype=dtype, of=ids.dtype).replace(r"\d+", r"-?\d+")
        with pytest.raises(ValueError, match=message):
            fn()


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_renumbered_as_the_message_says_they_are_right(implementation):
    u, v = batch(M, 4)
    ids = np.unique(WIDE, return_inverse=True)[1]
    got = losses.info_nce(u, v, ids=ids, temperature=0.2, implementation=implementation)
    np.testing.assert_allclose(got, oracles.info_nce(u, v, WIDE, 0.2), rtol=1e-5)


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_in_64_bit_mode_they_are_right_as_they_are(implementation, x64):
    u, v = batch(M, 4, dtype=jnp.float64)
    got = losses.info_nce(u, v, ids=WIDE, temperature=0.2, implementation=implementation)
    np.testing.assert_allclose(got, oracles.info_nce(u, v, WIDE, 0.2), rtol=1e-9)


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int8, np.uint8])
def test_ids_of_any_dtype_and_lists_are_right_where_they_fit(dtype, implementation):
    u, v = batch(6, 4)
    ids = np.array([3, 1, 3, 7, 7, 2])
    for given in (ids.astype(dtype), ids.tolist()):
        got = losses.info_nce(u, v, ids=given, temperature=0.2, implementation=implementation)
        np.testing.assert_allclose(got, oracles.info_nce(u, v, ids, 0.2), rtol=1e-5)


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_ids_of_two_dtypes_are_compared_by_value_or_refused(implementation):
    x, options = jnp.eye(2), {"implementation": implementation}
    ids = {"anchor_ids": jnp.array([-1, 255], jnp.int16), "candidate_ids": jnp.array([255, 0], jnp.uint8)}
    np.testing.assert_allclose(pairwise.total(jnp.exp, x, x, **ids, **options), [np.e + 1, np.e], rtol=1e-6)
    ids = {"anchor_ids": jnp.array([-1, 0], jnp.int32), "candidate_ids": jnp.array([2**32 - 1, 0], jnp.uint32)}
    with pytest.raises(ValueError, match="one integer dtype holds, got int32 and uint32; convert both to int32"):
        jax.eval_shape(lambda: pairwise.total(jnp.exp, x, x, **ids, **options))
