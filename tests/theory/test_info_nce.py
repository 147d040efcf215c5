"""InfoNCE's gradient against differentiation, and its limit against large batches and the uniform law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses, theory


def symmetric_info_nce(s, t):
    return -(jnp.diagonal(jax.nn.log_softmax(s / t, 0) + jax.nn.log_softmax(s / t, 1))).mean() / 2


@pytest.mark.parametrize("m", [2, 5, 33])
@pytest.mark.parametrize("t", [0.1, 1.0])
def test_negative_gradient_is_the_derivative(m, t):
    s = jax.random.uniform(jax.random.key(m), (m, m), minval=-1, maxval=1)
    want = jnp.where(jnp.eye(m, dtype=bool), 0, jax.grad(symmetric_info_nce)(s, t))
    np.testing.assert_allclose(theory.info_nce_negative_gradient(s, temperature=t), want, rtol=1e-4, atol=1e-7)


def test_negative_gradient_moves_embeddings_as_the_loss_does(x64):
    u, v = jax.random.normal(jax.random.key(0), (2, 6, 9))
    u, v = u / jnp.linalg.norm(u, axis=1, keepdims=True), v / jnp.linalg.norm(v, axis=1, keepdims=True)
    gradient = jax.grad(lambda u: losses.info_nce(u, v, temperature=0.5).mean())(u)
    # A direction orthogonal to u_0 and to every v but v_3, where it has unit length, changes s_03 alone.
    direction = jnp.linalg.pinv(jnp.concatenate([v, u[:1]]))[:, 3]
    want = theory.info_nce_negative_gradient(u @ v.T, temperature=0.5)[0, 3]
    np.testing.assert_allclose(gradient[0] @ direction, want, rtol=1e-9)


def test_negative_gradient_is_larger_in_smaller_batches():
    s = jax.random.uniform(jax.random.key(0), (16, 16), minval=-1, maxval=1)
    gradients = [theory.info_nce_negative_gradient(s[:m, :m])[0, 1] for m in (2, 4, 8, 16)]
    assert gradients == sorted(gradients, reverse=True)


@pytest.mark.parametrize(
    ("loss", "kinds", "constant"),
    [
        (losses.info_nce, {}, 1),
        (losses.dhel, {"cross_view": False, "within_view": True}, 1),
        (losses.dcl, {"within_view": True}, 2),
        (losses.simclr, {"within_view": True}, 2),
    ],
    ids=["info_nce", "dhel", "dcl", "simclr"],
)
def test_limit_is_that_of_large_batches(loss, kinds, constant):
    u = jax.random.normal(jax.random.key(0), (1500, 6))
    v = u + 0.5 * jax.random.normal(jax.random.key(1), u.shape)
    limit = theory.asymptotic_info_nce(u, v, temperature=0.5, **kinds)
    assert loss(u, v, temperature=0.5).mean() - np.log(constant * 1500) == pytest.approx(float(limit), abs=3e-3)


def test_least_limit_is_the_energy_of_the_uniform_law():
    u = jax.random.normal(jax.random.key(0), (4000, 5))
    want = np.log(theory.expected_gaussian_energy(1 / (2 * 0.5), 5))
    assert float(theory.asymptotic_info_nce(u, u, temperature=0.5)) == pytest.approx(want, abs=0.01)
    shifted = u + 0.5
    assert theory.asymptotic_info_nce(shifted, shifted, temperature=0.5) > want + 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.info_nce_negative_gradient(jnp.ones((2, 3))), r"\[m, m\] with m >= 2, got \(2, 3\)"),
        (lambda: theory.info_nce_negative_gradient(jnp.eye(2), temperature=0), "expected temperature > 0, got 0"),
        (lambda: theory.asymptotic_info_nce(jnp.ones((3, 2)), jnp.ones((4, 2))), "the same shape.*got"),
        (
            lambda: theory.asymptotic_info_nce(jnp.ones((3, 2)), jnp.ones((3, 2)), cross_view=False),
            "expected cross_view or within_view, or both, got neither",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
