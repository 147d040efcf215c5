"""Whole runs under what goes wrong, and for long."""

from contrastive_jax import extras

extras.check("flax", "psutil", extra="bench", what="experiments.reliability")
