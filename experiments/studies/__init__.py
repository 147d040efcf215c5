"""The theorems at work: embeddings optimised directly on the sphere, with no encoder, beside what theory predicts."""

from experiments import check_extra

check_extra("matplotlib", "optax", "threadpoolctl", extra="studies", what="experiments.studies")
