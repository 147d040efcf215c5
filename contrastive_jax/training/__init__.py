"""The pure step: what it compares, its gradient and its state."""

from contrastive_jax import extras

extras.check("flax", "optax", extra="train", what=__name__)
