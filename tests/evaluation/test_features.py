"""Extraction and pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import evaluation
from contrastive_jax.errors import UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 2), np.uint8)
LABELS = np.arange(7)


def padded_batches(size):
    for start in range(0, len(IMAGES), size):
        rows = np.arange(start, start + size)
        kept = rows % len(IMAGES)
        yield {"image": IMAGES[kept], "label": LABELS[kept], "mask": rows < len(IMAGES)}


def test_extract_keeps_the_valid_rows_in_order():
    features, labels = evaluation.extract(evaluation.raw_pixels, padded_batches(3))
    np.testing.assert_allclose(features, IMAGES.reshape(7, -1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(labels, LABELS)
    assert (features.dtype, labels.dtype) == (np.float32, np.int32)


def test_extract_compiles_once_and_takes_unpadded_batches():
    traces = []

    @jax.jit
    def feature_fn(images):
        traces.append(images.shape)
        return images.reshape(len(images), -1).astype(jnp.bfloat16)

    features, _ = evaluation.extract(feature_fn, padded_batches(2))
    assert traces == [(2, 4, 4, 2)]
    assert features.dtype == np.float32
    assert evaluation.extract(feature_fn, [{"image": IMAGES, "label": LABELS}])[0].shape == (7, 32)


def test_extract_refuses_no_batches():
    with pytest.raises(ValueError, match="expected at least one batch, got none"):
        evaluation.extract(evaluation.raw_pixels, [])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_extract_names_the_rows_that_are_not_finite(bad):
    def feature_fn(images):
        features = images.reshape(len(images), -1).astype(np.float32)
        return np.where(np.isin(images[:, :1, 0, 0], IMAGES[[2, 5], :1, 0, 0]), bad, features)

    message = "expected features that are finite in float32, got NaN or infinity in rows 2, 5 of 7"
    with pytest.raises(UsageError, match=message):
        evaluation.extract(feature_fn, padded_batches(3))


def test_extract_refuses_maps_and_other_numbers_of_rows():
    for feature_fn in (lambda images: images, lambda images: images.reshape(-1, 4)):
        with pytest.raises(UsageError, match=r"expected feature_fn to give features \[3, f\] of 3 images, got \["):
            evaluation.extract(feature_fn, padded_batches(3))
