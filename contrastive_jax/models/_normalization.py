"""Batch normalisation that is the same on any number of devices and in any compute dtype."""

import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm` with float32 statistics, PyTorch's constants, and an output in the input's dtype.

    Plain `nnx.BatchNorm` in bfloat16 rounds the running statistics to bfloat16 when it evaluates and mixes dtypes when
    it trains. It also computes the variance as E[x^2] - E[x]^2 by default, which cancels where the mean is large; here
    it is E[(x - E[x])^2].

    The statistics of a batch are means over all its axes but the last, and in `models.apply` over all devices, so the
    same numbers (to rounding) come from 1 device or from many with equal shares. The running variance averages the
    biased variance, as Flax and the papers' TensorFlow ancestors do; PyTorch's averages the unbiased one, n / (n - 1)
    times larger.

    Args:
      num_features: size of the last axis.
      scale_init: initialiser of the scale.
      rngs: source of keys.

    Example:
      >>> norm = BatchNorm(4, rngs=nnx.Rngs(0))
      >>> norm(jnp.ones((2, 4), jnp.bfloat16), train=True).dtype
      dtype(bfloat16)

    Reference:
      Ioffe and Szegedy, "Batch Normalization", ICML 2015, Algorithm 1.
    """

    def __init__(
        self,
        num_features: int,
        *,
        scale_init: nnx.Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            num_features,
            momentum=0.9,
            epsilon=1e-5,
            dtype=jnp.float32,
            use_fast_variance=False,
            scale_init=scale_init,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # type: ignore[override]
        """Normalises `x` [..., num_features] by the batch (`train`, which also moves the running averages) or by the
        running averages (which touches no mapped axis)."""
        return super().__call__(x, use_running_average=not train).astype(x.dtype)
