"""The theorems at work: embeddings optimised directly on the sphere, with no encoder, beside what theory predicts."""

from contrastive_jax import extras

extras.check("matplotlib", "optax", "threadpoolctl", extra="studies", what="experiments.studies")
