"""Nearest neighbours against a NumPy oracle."""

import numpy as np
import pytest

from contrastive_jax.errors import UsageError
from contrastive_jax.evaluation import knn

RNG = np.random.default_rng(0)
TRAIN, TRAIN_LABELS = RNG.normal(size=(90, 6)), RNG.integers(0, 4, 90)
TEST, TEST_LABELS = RNG.normal(size=(31, 6)), RNG.integers(0, 4, 31)


def oracle(k, temperature):
    train = TRAIN / np.linalg.norm(TRAIN, axis=1, keepdims=True)
    test = TEST / np.linalg.norm(TEST, axis=1, keepdims=True)
    right = 0
    for query, label in zip(test, TEST_LABELS, strict=True):
        similarities = train @ query
        nearest = np.argsort(-similarities)[:k]
        weights = np.exp(similarities[nearest] / temperature)
        right += np.bincount(TRAIN_LABELS[nearest], weights, minlength=4).argmax() == label
    return right / len(TEST)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (90, 0.5), (1000, 0.07)])
def test_knn_is_the_weighted_vote_in_blocks_of_any_size(k, temperature):
    for block_size in (1, 8, 256):
        accuracy = knn(
            TRAIN,
            TRAIN_LABELS,
            TEST,
            TEST_LABELS,
            num_classes=4,
            k=k,
            temperature=temperature,
            block_size=block_size,
        )
        assert accuracy == oracle(k, temperature)


def test_low_temperature_is_the_nearest_neighbour():
    cold = knn(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, num_classes=4, temperature=1e-4)
    assert cold == oracle(1, 1.0)


def test_knn_separates_digits(digits):
    assert knn(*digits, num_classes=10, k=20) > 0.95


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e19, 5e37])
def test_scale_of_the_features_does_not_count(scale):
    expected = oracle(7, 0.07)
    for train, test in ((scale * TRAIN, TEST), (TRAIN, scale * TEST)):
        assert knn(train, TRAIN_LABELS, test, TEST_LABELS, num_classes=4, k=7) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "expected k to be an integer of at least 1, got 0"),
        ({"k": 2.5}, "expected k to be an integer of at least 1, got 2.5"),
        ({"block_size": 0}, "expected block_size to be an integer of at least 1, got 0"),
        ({"num_classes": 0}, "expected num_classes to be an integer of at least 1, got 0"),
        ({"temperature": 0.0}, "expected temperature to be finite and greater than 0, got 0.0"),
        ({"temperature": float("nan")}, "expected temperature to be finite and greater than 0, got nan"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        knn(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, **{"num_classes": 4} | options)
