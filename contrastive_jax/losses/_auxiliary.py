"""Terms added to a contrastive loss."""

import numbers

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.losses import _pairs


@explicit_axes.accept(out_axis=0)
def vrns(
    u: jax.Array,
    v: jax.Array,
    *,
    num_instances: int | jax.Array,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""Variance reduction for negative similarities: pulls each of them to the full batch's optimum.

    .. math:: \ell_i = \frac{1}{m-1} \sum_{j \ne i} \Bigl(u_i^\top v_j + \frac{1}{n-1}\Bigr)^2

    Add it to a contrastive loss with a weight lambda; the paper searches {0.1, 0.3, 1, 3, 10, 30, 100}.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      num_instances: n, the size of the **training set**, not of the batch; at least 2; may be traced.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: `"moments"` takes time and memory linear in m, see `pairwise.moments`, and gathers no embeddings;
        the others reduce the negatives as `pairwise.total` does. None takes moments from 2d pairs of all devices on.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`: for each anchor the mean over its
      negatives; 0 for an anchor without any.

    Raises:
      ValueError: for shapes that differ, fewer than two pairs over all devices, num_instances known to be below 2, or
        an unknown implementation.

    Example:
      >>> u = jax.random.normal(jax.random.key(0), (8, 16))
      >>> loss = (losses.simclr(u, u) + 30 * losses.vrns(u, u, num_instances=50_000)).mean()

    References:
      Lee et al., 2025, Definition 5.7, https://arxiv.org/abs/2506.09781. The authors' README writes 1/n; their code and
      their paper, 1/(n - 1).
    """
    if isinstance(num_instances, numbers.Real) and not num_instances >= 2:
        raise ValueError(f"losses.vrns: expected num_instances >= 2 (of the training set), got {num_instances}.")
    pairs = _pairs.prepare("vrns", u, v, ids, axis_name)
    target = -1 / (jnp.asarray(num_instances, pairs.u.dtype) - 1)
    return _pairs.mean_square("vrns", pairs, ids, target, axis_name, implementation, precision)
