"""A run as a process on a machine: its configuration, its loop, its logs and what it leaves."""

from contrastive_jax import extras

extras.check(
    "PIL",
    "flax",
    "grain",
    "matplotlib",
    "ml_collections",
    "optax",
    "orbax",
    "sklearn",
    "tensorboardX",
    "tqdm",
    extra="train",
    what=__name__,
)
