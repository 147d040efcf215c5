"""The engine against NumPy, beyond what the losses ask of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import pairwise


def arrays(m=5, n=9, d=4):
    return jax.random.normal(jax.random.key(0), (m, d)), jax.random.normal(jax.random.key(1), (n, d))


def test_more_candidates_than_anchors_and_no_ids():
    anchors, candidates = arrays()
    logits = 3 * np.asarray(anchors, np.float64) @ np.asarray(candidates, np.float64).T
    got = pairwise.logsumexp(anchors, candidates, scale=3.0)
    np.testing.assert_allclose(got, np.log(np.exp(logits).sum(1)), rtol=1e-5)
    np.testing.assert_allclose(pairwise.total(jnp.tanh, anchors, candidates), np.tanh(logits / 3).sum(1), rtol=1e-5)


def test_ids_of_either_side():
    anchors, candidates = arrays()
    anchor_ids, candidate_ids = jnp.array([0, 1, 2, 9, 9]), jnp.array([0, 0, 1, 5, 9, 5, 5, 9, 2])
    keep = np.asarray(anchor_ids)[:, None] != np.asarray(candidate_ids)
    options = {"anchor_ids": anchor_ids, "candidate_ids": candidate_ids}
    got = pairwise.total(jnp.square, anchors, candidates, **options)
    np.testing.assert_allclose(got, np.where(keep, np.asarray(anchors @ candidates.T) ** 2, 0).sum(1), rtol=1e-5)


def test_an_anchor_without_negatives():
    anchors = jnp.eye(2)
    ids = jnp.zeros(2, jnp.int32)
    options = {"anchor_ids": ids, "candidate_ids": ids}
    values, pullback = jax.vjp(lambda x: pairwise.logsumexp(x, anchors, **options), anchors)
    assert np.isneginf(values).all()
    assert not pullback(jnp.ones(2))[0].any()
    assert not pairwise.total(jnp.exp, anchors, anchors, **options).any()


def test_the_function_never_sees_an_excluded_pair():
    """A kernel that is infinite where a pair coincides keeps a finite gradient."""
    x, ids = jnp.eye(3), jnp.arange(3)

    def energy(x):
        return pairwise.total(lambda s: 1 / jnp.sqrt(2 - 2 * s), x, x, anchor_ids=ids, candidate_ids=ids).sum()

    value, grad = jax.value_and_grad(energy)(x)
    np.testing.assert_allclose(value, 6 / np.sqrt(2), rtol=1e-5)
    assert np.isfinite(grad).all()


def test_function_may_close_over_traced_values():
    anchors, candidates = arrays()
    grad = jax.jit(jax.grad(lambda w: pairwise.total(lambda s: w * s, anchors, candidates).sum()))(2.0)
    np.testing.assert_allclose(grad, (anchors @ candidates.T).sum(), rtol=1e-4)


def test_low_precision_is_accumulated_in_float32():
    x = jnp.ones((4, 1024), jnp.bfloat16) / 32
    got = pairwise.similarities(x, x)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, 1.0)


def test_normalize_at_every_scale():
    x = jnp.array([[3.0, 4.0], [3e-38, 4e-38], [3e37, 4e37], [0.0, 0.0]])
    np.testing.assert_allclose(pairwise.normalize(x), [[0.6, 0.8]] * 3 + [[0, 0]], rtol=1e-6)
    grad = jax.grad(lambda x: pairwise.normalize(x)[:, 0].sum())(x)
    np.testing.assert_allclose(grad[0], [0.128, -0.096], rtol=1e-5)
    assert not grad[3].any() and np.isfinite(grad).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, c: pairwise.logsumexp(a, c[:, :2]), r"\[n, d\].*\(5, 4\) and \(9, 2\)"),
        (lambda a, c: pairwise.total(jnp.exp, a[0], c), r"\(4,\)"),
        (lambda a, c: pairwise.logsumexp(a.astype(int), c), "float dtype.*int32"),
        (lambda a, c: pairwise.logsumexp(a, c, anchor_ids=jnp.arange(5)), "both"),
        (
            lambda a, c: pairwise.total(abs, a, c, anchor_ids=np.arange(5), candidate_ids=np.arange(5)),
            "candidate_ids.*9",
        ),
        (lambda a, c: pairwise.logsumexp(a, c, implementation="sparse"), "'dense'.*got 'sparse'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(*arrays())


@pytest.mark.parametrize("scale", [1e-35, 1.0, 3e38])
def test_a_constant_is_normalised_as_an_argument_is(scale):
    """XLA computes what depends on constants alone by itself, and may change the order of their products."""
    x = np.random.default_rng(0).uniform(-1, 1, (5, 4)).astype(np.float32) * np.float32(scale)
    want = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    for got in (jax.jit(lambda: pairwise.normalize(jnp.asarray(x)))(), jax.jit(pairwise.normalize)(x)):
        np.testing.assert_allclose(got, want, atol=1e-6)
