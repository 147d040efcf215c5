"""Projection heads: features to the embeddings that a loss compares."""

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models._initializers import lecun_normal
from contrastive_jax.models._normalization import BatchNorm


class ProjectionHead(nnx.Module):
    """Linear - BatchNorm - ReLU - Linear, in float32.

    The first layer has no bias, since the normalisation after it would remove it. Weights start with Flax's default,
    LeCun normal.

    Args:
      inputs: size of the features.
      hidden: size of the hidden layer.
      outputs: size of the embeddings.
      axis_name: mapped axis over which batches are normalised in training; see `BatchNorm`.
      rngs: source of keys.

    Example:
      >>> head = ProjectionHead(64, 64, 128, rngs=nnx.Rngs(0))
      >>> head(jnp.zeros((2, 64))).shape
      (2, 128)

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, Section 4.2, with
      the sizes of Lee et al. 2025.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int = 128, *, axis_name: str | None = None, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(inputs, hidden, use_bias=False, kernel_init=lecun_normal, rngs=rngs)
        self.norm = BatchNorm(hidden, axis_name=axis_name, rngs=rngs)
        self.out = nnx.Linear(hidden, outputs, kernel_init=lecun_normal, rngs=rngs)

    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Embeddings [b, outputs] float32, not normalised, of features [b, inputs]."""
        x = self.norm(self.hidden(features.astype(jnp.float32)), train=train)
        return self.out(nnx.relu(x))
