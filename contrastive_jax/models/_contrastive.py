"""The model that contrastive learning trains: an encoder and a head."""

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.errors import UsageError
from contrastive_jax.models._calling import call, describe, set_mode


class ContrastiveModel(nnx.Module):
    """An encoder, whose features are evaluated, and a head, whose projections are contrasted.

    Args:
      encoder: any `nnx.Module` from images [b, h, w, c] to features [b, f].
      head: any `nnx.Module` from features [b, f] to projections [b, d]; None contrasts the features themselves.

    Raises:
      UsageError: either is no `nnx.Module`.

    Example:
      >>> encoder = models.ENCODERS["resnet18"]((8, 8, 1), width=8, rngs=nnx.Rngs(0))
      >>> model = models.ContrastiveModel(encoder, models.ProjectionHead(64, 64, 128, rngs=nnx.Rngs(1)))
      >>> images = jnp.zeros((2, 8, 8, 1))
      >>> model(images).shape, model.features(images).shape
      ((2, 128), (2, 64))
    """

    def __init__(self, encoder: nnx.Module, head: nnx.Module | None = None):
        for name, module in (("encoder", encoder), ("head", head)):
            if not isinstance(module, nnx.Module) and (name, module) != ("head", None):
                raise UsageError(f"expected the {name} to be an nnx.Module, got {describe(module)}.")
        self.encoder = encoder
        self.head = nnx.data(head)

    def features(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features [b, f] float32 of images [b, h, w, c]."""
        set_mode(self, train=train)
        return call(self.encoder, images, train=train).astype(jnp.float32)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Projections [b, d] float32, not normalised, of images [b, h, w, c]."""
        features = self.features(images, train=train)
        return features if self.head is None else call(self.head, features, train=train).astype(jnp.float32)
