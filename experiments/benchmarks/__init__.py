"""Speed and memory of the losses and of a step, beside what others publish."""

from contrastive_jax import extras

extras.check("flax", "psutil", extra="bench", what="experiments.benchmarks")
