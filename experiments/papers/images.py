"""Images small and few enough for two cores: subsets of CIFAR-10 and Fashion-MNIST, as sources of a run.

--config.data.source=experiments.papers.images:cifar10
"""

import numpy as np

from contrastive_jax.data import sources

TRAIN, TEST = 10_000, 5_000  # the first of each split, whose order in TensorFlow Datasets is random


def cifar10(split: str) -> sources.Source:
    """10,000 training and 5,000 test images of CIFAR-10."""
    return _first("cifar10", split)


def fashion_mnist(split: str) -> sources.Source:
    """10,000 training and 5,000 test images of Fashion-MNIST."""
    return _first("fashion_mnist", split)


def _first(name: str, split: str) -> sources.Source:
    whole = sources.load(f"tfds:{name}", split=split)
    chosen = np.arange(min(TRAIN if split == "train" else TEST, len(whole)))
    labels = sources.labels_of(whole)
    return sources.ArraySource(whole.take(chosen), labels[chosen])
