"""Whole runs, killed at random moments or watched over many steps."""

from experiments import check_extra

check_extra("flax", "psutil", extra="bench", what="experiments.reliability")
