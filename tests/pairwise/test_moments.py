"""Moments of the similarities to all negatives, in linear time: those of the pairs themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import pairwise
from tests.mappings import AXIS, MAPPINGS

M, D, SHIFT = 24, 5, 0.3
ANCHORS, CANDIDATES = jax.random.normal(jax.random.key(0), (2, M, D))
# Ids that all differ, in order and not; that repeat a few times, and often; and of anchors unlike the candidates'.
IDS = {
    "in order": (np.arange(M), np.arange(M)),
    "shuffled": (np.arange(M), np.random.default_rng(0).permutation(M)),
    "pairs": (np.arange(M) // 2, np.arange(M) // 2),
    "often": (np.arange(M) % 3, np.arange(M) % 3),
    "once often": (np.maximum(np.arange(M), 6), np.maximum(np.arange(M), 6)),
    "others": (np.arange(M) + 2 * M, np.arange(M)),
}


def expect(anchors, candidates, anchor_ids, candidate_ids, shift=SHIFT):
    anchors, candidates = np.asarray(anchors, np.float64), np.asarray(candidates, np.float64)
    negative = anchor_ids[:, None] != candidate_ids
    s = np.where(negative, anchors @ candidates.T - shift, 0)
    return negative.sum(1), s.sum(1), np.square(s).sum(1)


def check(got, want):
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", IDS)
def test_equal_those_of_the_pairs(name):
    a, c = map(jnp.asarray, IDS[name])
    got = jax.jit(pairwise.moments)(ANCHORS, CANDIDATES, shift=SHIFT, anchor_ids=a, candidate_ids=c)
    check(got, expect(ANCHORS, CANDIDATES, *IDS[name]))


def test_without_ids_and_in_pairs():
    everyone = np.full(M, -1), np.arange(M)
    check(
        pairwise.moments(ANCHORS, CANDIDATES[:7], shift=SHIFT),
        expect(ANCHORS, CANDIDATES[:7], everyone[0], np.arange(7)),
    )
    got = pairwise.moments(ANCHORS, CANDIDATES, shift=SHIFT, paired=True)
    check(got, expect(ANCHORS, CANDIDATES, np.arange(M), np.arange(M)))


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("name", ["in order", "pairs", "often"])
@pytest.mark.parametrize("mapped", MAPPINGS.values(), ids=MAPPINGS.keys())
def test_any_number_of_devices(mapped, name, devices):
    a, c = map(jnp.asarray, IDS[name])

    def fn(anchors, candidates, a, c):
        return pairwise.moments(anchors, candidates, shift=SHIFT, anchor_ids=a, candidate_ids=c, axis_name=AXIS)

    got = jax.jit(mapped(fn, devices))(ANCHORS, CANDIDATES, a, c)
    check(got, expect(ANCHORS, CANDIDATES, *IDS[name]))


@pytest.mark.parametrize("name", ["in order", "shuffled", "pairs", "often"])
def test_first_and_second_derivatives(name):
    a, c = map(jnp.asarray, IDS[name])

    def linear(anchors, candidates, shift):
        found = pairwise.moments(anchors, candidates, shift=shift, anchor_ids=a, candidate_ids=c)
        return jnp.sum(jnp.sin(found.total)) + jnp.sum(jnp.log(found.squares))

    def dense(anchors, candidates, shift):
        s = jnp.where(a[:, None] != c[None], anchors @ candidates.T - shift, 0)
        return jnp.sum(jnp.sin(s.sum(1))) + jnp.sum(jnp.log(jnp.square(s).sum(1)))

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(fn, *args):
        first = jax.grad(fn, argnums=(0, 1, 2))
        return first(*args), jax.grad(lambda *args: sum(jnp.sum(jnp.square(x)) for x in first(*args)), argnums=(0, 1))(
            *args
        )

    args = ANCHORS[:8], CANDIDATES, jnp.float32(SHIFT)
    a = a[:8]
    for x, y in zip(
        jax.tree.leaves(derivatives(linear, *args)), jax.tree.leaves(derivatives(dense, *args)), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-3 * float(jnp.abs(y).max()))


def test_vmap_takes_the_branch_of_all_copies():
    ids = jnp.stack([jnp.arange(M), jnp.arange(M) // 2, jnp.arange(M) % 3])

    def fn(ids, shift):
        return pairwise.moments(ANCHORS, CANDIDATES, shift=shift, anchor_ids=ids, candidate_ids=ids)

    shifts = jnp.asarray([0.0, 0.1, 0.2])
    got = jax.jit(jax.vmap(fn))(ids, shifts)
    for k in range(3):
        want = expect(ANCHORS, CANDIDATES, np.asarray(ids[k]), np.asarray(ids[k]), float(shifts[k]))
        check([x[k] for x in got], want)


@pytest.mark.parametrize("m", [1 << 15])
def test_memory_is_linear_and_nothing_is_gathered(m):
    """One array [m, d] has 17 MB; a matrix of similarities would have 4.3 GB."""
    shape = jax.ShapeDtypeStruct((m, 128), jnp.float32)

    def loss(u, v):
        return pairwise.moments(u, v, paired=True).squares.mean()

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(shape, shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * m * 128 * 4
    traced = str(
        jax.make_jaxpr(lambda u, v: pairwise.moments(u, v, paired=True, axis_name=AXIS), axis_env=[(AXIS, 2)])(
            shape, shape
        )
    )
    assert "all_gather" not in traced and "ppermute" not in traced and "psum" in traced


def test_a_million_rows_lose_nothing_in_float32():
    """The sum over rows: a running sum of a million terms would be wrong in the fourth digit."""
    x = jnp.full((1 << 20, 1), 0.1, jnp.float32)
    found = pairwise.moments(jnp.ones((1, 1)), x)
    np.testing.assert_allclose(found.total[0], float(x[0, 0]) * 2**20, rtol=1e-5)
    np.testing.assert_allclose(found.squares[0], float(x[0, 0]) ** 2 * 2**20, rtol=1e-5)


@pytest.mark.parametrize("options", [{"anchor_ids": np.arange(M), "candidate_ids": np.arange(M)}, {"n": 3}])
def test_what_is_not_paired_is_refused(options):
    candidates = CANDIDATES[: options.pop("n", M)]
    with pytest.raises(
        ValueError, match=r"pairwise.moments: expected paired anchors and candidates of the same number"
    ):
        pairwise.moments(ANCHORS, candidates, paired=True, **options)
