"""Pairs of embeddings as the parameters of an optimisation, on the sphere."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from contrastive_jax import pairwise

_RESTARTS = 10
_OPTIONS = {"maxiter": 5000, "maxfun": 10000, "maxcor": 30, "ftol": 0, "gtol": 1e-12}


class Embeddings(NamedTuple):
    """Both views of n instances, unit norm, and the loss there."""

    u: np.ndarray  # [n, d]
    v: np.ndarray  # [n, d]
    loss: float


def make_minimizer(loss: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., Embeddings]:
    """A function that minimises `loss(u, v, *args) -> []` over unit embeddings by L-BFGS, from a random start.

    It is compiled once for each shape; `args` are further arrays that the loss takes.

    Example:
      >>> minimize = make_minimizer(lambda u, v: losses.simclr(u, v).mean())
      >>> u, v, loss = minimize(n=8, d=8, seed=0)
    """

    def of_vector(x, u, args):
        u, v = pairwise.normalize(x.reshape(-1, u.shape[-1])).reshape(2, *u.shape)
        return loss(u, v, *args)

    # Arrays this small cost more to compile than to run.
    fast = {"xla_backend_optimization_level": "0"}
    value_and_grad = jax.jit(jax.value_and_grad(of_vector), compiler_options=fast)

    def minimize(*args: jax.Array, n: int, d: int, seed: int) -> Embeddings:
        shape = np.zeros((n, d))

        def objective(x):
            value, gradient = value_and_grad(x, shape, args)
            return float(value), np.asarray(gradient)

        x, least = np.random.default_rng(seed).normal(size=2 * n * d), np.inf
        for _ in range(_RESTARTS):  # a kernel with a kink at coinciding pairs stops the line search early
            found = scipy.optimize.minimize(objective, x, jac=True, method="L-BFGS-B", options=_OPTIONS)
            x, before, least = found.x, least, found.fun
            if not least < before - 1e-12:
                break
        u, v = np.asarray(pairwise.normalize(jnp.asarray(x).reshape(-1, d))).reshape(2, n, d)
        return Embeddings(u, v, float(least))

    return minimize


def positives(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The n similarities of positive pairs."""
    return np.sum(u * v, axis=-1)


def negatives(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The n (n-1) similarities of cross-view negative pairs."""
    similarities = u @ v.T
    return similarities[~np.eye(len(similarities), dtype=bool)]
