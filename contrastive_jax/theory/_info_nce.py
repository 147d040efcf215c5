"""InfoNCE in small batches and in the limit of large ones."""

import math
import numbers

import jax
import jax.numpy as jnp

from contrastive_jax import explicit_axes, pairwise


@explicit_axes.accept(out_axis=0)
def info_nce_negative_gradient(similarities: jax.Array, *, temperature: float | jax.Array = 0.2) -> jax.Array:
    r"""Derivative of the mean `info_nce` loss with respect to the similarity of each negative pair.

    .. math::
        \frac{\partial L}{\partial s_{ij}} = \frac{1}{2mt} \Bigl(\frac{e^{s_{ij}/t}}{\sum_k e^{s_{ik}/t}}
            + \frac{e^{s_{ij}/t}}{\sum_k e^{s_{kj}/t}}\Bigr) \ge 0, \qquad i \ne j

    so every negative pair is pushed apart, and the harder the smaller m is.

    Args:
      similarities: [m, m], s_ij of anchor i of one view and candidate j of the other; positives on the diagonal.
      temperature: t > 0, scalar; may be traced.

    Returns:
      [m, m] in the dtype of the similarities; 0 on the diagonal, which holds no negative.

    Raises:
      ValueError: for similarities that are not square, m < 2, or a temperature known to be <= 0.

    Example:
      >>> gradient = theory.info_nce_negative_gradient(jnp.eye(2), temperature=1.0)
      >>> round(float(gradient[0, 1]), 4), float(gradient[0, 0])
      (0.1345, 0.0)

    References:
      Lee et al., 2025, Theorem 5.6 (Equation 13).
    """
    s = jnp.asarray(similarities)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or len(s) < 2:
        raise ValueError(
            f"theory.info_nce_negative_gradient: expected similarities of shape [m, m] with m >= 2, got {s.shape}."
        )
    t = _temperature("info_nce_negative_gradient", temperature, s.dtype)
    both = jax.nn.softmax(s / t, axis=1) + jax.nn.softmax(s / t, axis=0)
    return jnp.where(jnp.eye(len(s), dtype=bool), 0, both / (2 * len(s) * t))


@explicit_axes.accept(out_axis=None)
def asymptotic_info_nce(
    u: jax.Array,
    v: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    cross_view: bool = True,
    within_view: bool = False,
) -> jax.Array:
    r"""Limit of the InfoNCE family for large batches, without the constant that grows with them.

    .. math:: \lim_m \mathbb{E}[L_m] - \log(c m) = -\tfrac{1}{t}\, \mathbb{E}[u^\top v]
              + \mathbb{E}_u \log \mathbb{E}_{u'} e^{u^\top u'/t}

    for embeddings with the empirical distribution of the n given pairs, and u' independent of u. The constant is log m
    for `info_nce` and `dhel` (form "mean") and log 2m for `simclr` and `dcl`. If both views have the same distribution,
    as the paper assumes, all share this limit; for n given pairs it depends slightly on the kind of negatives, which is
    chosen here. Its minimum, for aligned and uniform embeddings, is
    `log(theory.expected_gaussian_energy(1 / (2 t), d))`.

    Args:
      u: [n, d] embeddings of one view, any float dtype; normalised inside.
      v: [n, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      temperature: t > 0, scalar; may be traced.
      cross_view: whether u' is drawn from the other view: for `info_nce`.
      within_view: whether u' is drawn from the same view: for `dhel`; both: for `simclr` and `dcl`.

    Returns:
      [] float32 (float64 for float64 input).

    Raises:
      ValueError: for shapes that differ, n < 2, a temperature known to be <= 0, or neither kind of negative.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (1000, 16))
      >>> limit = theory.asymptotic_info_nce(u, u, temperature=0.5)

    References:
      Koromilas et al., 2024, Theorem 4.2 and its corollary; Wang and Isola, 2020, Theorem 1.
    """
    u, v = jnp.asarray(u), jnp.asarray(v)
    if u.ndim != 2 or u.shape != v.shape or len(u) < 2:
        raise ValueError(
            f"theory.asymptotic_info_nce: expected u and v of the same shape [n, d] with n >= 2, "
            f"got {u.shape} and {v.shape}."
        )
    if not (cross_view or within_view):
        raise ValueError("theory.asymptotic_info_nce: expected cross_view or within_view, or both, got neither.")
    u, v = pairwise.normalize(u), pairwise.normalize(v)
    scale = 1 / _temperature("asymptotic_info_nce", temperature, u.dtype)
    ids = jnp.arange(len(u), dtype=jnp.int32)
    kinds = [kind for kind, counts in (("cross", cross_view), ("within", within_view)) if counts]

    def log_mean(anchors: jax.Array, others: jax.Array) -> jax.Array:
        candidates = {"cross": others, "within": anchors}
        sums = [
            pairwise.logsumexp(anchors, candidates[k], scale=scale, anchor_ids=ids, candidate_ids=ids) for k in kinds
        ]
        return jax.nn.logsumexp(jnp.stack(sums), axis=0) - math.log(len(kinds) * (len(u) - 1))

    uniformity = (jnp.mean(log_mean(u, v)) + jnp.mean(log_mean(v, u))) / 2
    return uniformity - jnp.mean(jnp.sum(u * v, axis=-1)) * scale


def _temperature(function: str, temperature: float | jax.Array, dtype: jnp.dtype) -> jax.Array:
    if isinstance(temperature, numbers.Real) and not temperature > 0:
        raise ValueError(f"theory.{function}: expected temperature > 0, got {temperature}.")
    return jnp.asarray(temperature, dtype)
