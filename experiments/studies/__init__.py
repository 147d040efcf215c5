"""The theorems at work: embeddings optimised directly on the sphere, beside what theory predicts for them."""

from experiments import check_extra

check_extra("matplotlib", "optax", "threadpoolctl", extra="studies", what="experiments.studies")
