"""Speed and memory of the losses and of the training step, beside other libraries."""

from contrastive_jax import extras

extras.check("flax", "psutil", extra="bench", what="experiments.benchmarks")
