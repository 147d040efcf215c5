"""A multi-layer perceptron on pixels."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from contrastive_jax.models._checks import check_at_least_one, check_dtype, check_images
from contrastive_jax.models._initializers import lecun_normal
from contrastive_jax.models._normalization import BatchNorm


class MLP(nnx.Module):
    """Flattened images through layers of Linear - BatchNorm - ReLU.

    The linear layers have no bias, since the normalisation after them would remove it. Weights start as LeCun normal.

    Args:
      image_shape: `(height, width, channels)` of the images.
      hidden: sizes of the layers; the last is that of the features.
      dtype: dtype of the matrix products; normalisation, parameters and features are float32 whatever it is.
      rngs: source of keys.

    Raises:
      UsageError: no layers, a size below 1, or an unknown `dtype`.

    Example:
      >>> encoder = MLP((8, 8, 1), hidden=(32, 16), rngs=nnx.Rngs(0))
      >>> encoder(jnp.zeros((2, 8, 8, 1))).shape
      (2, 16)
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        hidden: Sequence[int] = (512, 512),
        dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        check_dtype(dtype)
        check_at_least_one(layers=len(hidden), **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
        self.image_shape = tuple(image_shape)
        sizes = (math.prod(image_shape), *hidden)
        self.linears = nnx.List(
            [
                nnx.Linear(inputs, outputs, use_bias=False, dtype=dtype, kernel_init=lecun_normal, rngs=rngs)
                for inputs, outputs in itertools.pairwise(sizes)
            ]
        )
        self.norms = nnx.List([BatchNorm(size, rngs=rngs) for size in hidden])

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features [b, hidden[-1]] float32 of images [b, *image_shape], floating point."""
        check_images(images, self.image_shape)
        x = images.reshape(len(images), -1)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = nnx.relu(norm(linear(x), train=train))
        return x.astype(jnp.float32)
