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
      rngs: source of keys.

    Example:
      >>> head = ProjectionHead(64, 64, 128, rngs=nnx.Rngs(0))
      >>> head(jnp.zeros((2, 64))).shape
      (2, 128)

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, Section 4.2, with
      the sizes of Lee et al. 2025.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int = 128, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(inputs, hidden, use_bias=False, kernel_init=lecun_normal, rngs=rngs)
        self.norm = BatchNorm(hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, outputs, kernel_init=lecun_normal, rngs=rngs)

    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Embeddings [b, outputs] float32, not normalised, of features [b, inputs]."""
        x = self.norm(self.hidden(features.astype(jnp.float32)), train=train)
        return self.out(nnx.relu(x))


def build_projection(num_features: int, *, rngs: nnx.Rngs, hidden: int | None = None, out: int = 128) -> ProjectionHead:
    """The `"projection"` head: a `ProjectionHead`, by default with as many hidden units as there are features."""
    return ProjectionHead(num_features, num_features if hidden is None else hidden, out, rngs=rngs)


def build_none(num_features: int, *, rngs: nnx.Rngs) -> None:
    """The `"none"` head: the features are contrasted themselves."""
