"""Speed and memory of the losses and of the training step, beside other libraries."""

from experiments import check_extra

check_extra("flax", "psutil", extra="bench", what="experiments.benchmarks")
