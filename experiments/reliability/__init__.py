"""Whole runs, killed at random moments or watched over many steps."""

from contrastive_jax import extras

extras.check("flax", "psutil", extra="bench", what="experiments.reliability")
