"""Extraction, pixels and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import evaluation

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
    with pytest.raises(ValueError, match="batches are empty"):
        evaluation.extract(evaluation.raw_pixels, [])


def test_l2_normalize_gives_unit_rows_and_keeps_zero():
    out = evaluation.l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(out, [[0.6, 0.8], [0, 0]], rtol=1e-6)
