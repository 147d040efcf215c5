"""Rounded products, emulated, are those of rounded operands, in every product of a function that is not exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from contrastive_jax import losses, pairwise
from contrastive_jax.pairwise import shared
from experiments.studies import rounding

pytestmark = pytest.mark.usefixtures("x64")
U, V = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in np.random.default_rng(0).normal(size=(2, 12, 32)))
U, V = U.astype(np.float32), V.astype(np.float32)


def products(rounding_of):
    emulated = rounding.emulate(lambda u, v: pairwise.similarities(u, v, precision="default"), rounding_of)
    return np.asarray(emulated(U, V), np.float64)


def test_bfloat16_is_what_the_processor_does_with_operands_of_that_dtype():
    u, v = (jnp.asarray(x, jnp.bfloat16) for x in (U, V))
    native = lax.dot_general(u, v, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    np.testing.assert_allclose(products(rounding.bf16), native, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("rounding_of", "bits"),
    [(rounding.bf16, 8), (rounding.tf32, 11), (rounding.bf16_x3, 16)],
    ids=["bf16", "tf32", "x3"],
)
def test_the_error_is_that_of_so_many_bits(rounding_of, bits):
    error = np.abs(products(rounding_of) - U.astype(np.float64) @ V.T.astype(np.float64)).max()
    assert 2.0**-bits / 50 < error < 2.0**-bits


def test_halves_are_rounded_to_even():
    x = jnp.float32([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11])
    assert rounding.bf16(x, x)[0][0].tolist() == [1, 1 + 2**-6, 1, 1]
    assert rounding.tf32(x, x)[0][0].tolist() == [1 + 2**-8, 1 + 3 * 2**-8, 1, 1 + 2**-9]


def test_the_highest_precision_is_left_alone():
    exact = lambda u, v: losses.simclr(u, v).mean()  # noqa: E731
    np.testing.assert_array_equal(rounding.emulate(exact, rounding.bf16)(U, V), exact(U, V))


@pytest.mark.parametrize("loss", [losses.info_nce, losses.simclr, losses.kcl, losses.siglip])
def test_every_implementation_rounds_the_same_products(loss, monkeypatch):
    """So the precision reaches all products of value and gradient, whichever way they are computed."""
    monkeypatch.setattr(shared, "BLOCK_SIZE", 5)

    def value_and_grads(implementation):
        mean = lambda u, v: loss(u, v, precision="default", implementation=implementation).mean()  # noqa: E731
        return jax.jit(rounding.emulate(jax.value_and_grad(mean, argnums=(0, 1)), rounding.bf16))(U, V)

    dense, tiled = map(value_and_grads, ("dense", "blockwise"))
    exact = jax.grad(lambda u, v: loss(u, v).mean())(U, V)
    np.testing.assert_allclose(tiled[0], dense[0], rtol=1e-6)
    # Cotangents are rounded before and after a common factor, so gradients agree to the rounding of single terms.
    error = np.linalg.norm(dense[1][0] - exact)
    assert np.linalg.norm(tiled[1][0] - dense[1][0]) < 1.5 * error
    assert error > 1e-6 * np.linalg.norm(exact)


def test_positive_pairs_stay_exact_in_the_general_form():
    def named(u, v):
        return losses.info_nce(u, v, temperature=0.05, precision="default")

    def general(u, v):
        functions = {"phi": lambda x: jnp.exp(x / 0.05), "psi": jnp.log1p}
        return losses.info_nce_based(u, v, precision="default", **functions)

    want, got = (rounding.emulate(fn, rounding.bf16)(U, V) for fn in (named, general))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    grads = [
        rounding.emulate(jax.grad(lambda u, v, fn=fn: fn(u, v).mean()), rounding.bf16)(U, V) for fn in (named, general)
    ]
    assert np.linalg.norm(grads[0] - grads[1]) < 2e-2 * np.linalg.norm(grads[0])
