"""The theorems at work: embeddings optimised directly on the sphere, beside what theory predicts for them."""

from contrastive_jax import extras

extras.check("matplotlib", "optax", "threadpoolctl", extra="studies", what="experiments.studies")
