"""The digits' pixels, split once."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """(train features, train labels, test features, test labels): 1,437 and 360 examples of 64 pixels."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:1437], order[1437:]
    return pixels[train], labels[train], pixels[test], labels[test]
