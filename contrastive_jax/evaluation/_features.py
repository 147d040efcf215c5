"""Features of a whole data set, as NumPy arrays."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def extract(
    feature_fn: Callable[[Any], ArrayLike], batches: Iterable[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of every row of `batches`, in order.

    Args:
      feature_fn: images [b, h, w, c] to features [b, f]; jit it. All batches should have one shape, so that it compiles
        once.
      batches: mappings with `image` [b, h, w, c], `label` [b] and, where a batch is padded, `mask` [b] bool: the rows
        that count.

    Returns:
      `(features, labels)`: [n, f] float32 and [n] int32.

    Raises:
      ValueError: there are no batches.

    Example:
      >>> batch = {"image": np.zeros((4, 8, 8, 1), np.uint8), "label": np.zeros(4), "mask": np.arange(4) < 3}
      >>> features, labels = extract(raw_pixels, [batch])
      >>> features.shape
      (3, 64)
    """
    features, labels = [], []
    for batch in batches:
        mask = batch.get("mask", slice(None))
        features.append(np.asarray(feature_fn(batch["image"]), np.float32)[mask])
        labels.append(np.asarray(batch["label"], np.int32)[mask])
    if not features:
        raise ValueError("batches are empty, want at least one")
    return np.concatenate(features), np.concatenate(labels)


@jax.jit
def raw_pixels(images: ArrayLike) -> jax.Array:
    """The pixels themselves as features: the baseline that an encoder has to beat.

    Args:
      images: [b, h, w, c] uint8.

    Returns:
      [b, h * w * c] float32 in [0, 1].
    """
    images = jnp.asarray(images)
    return images.reshape(len(images), -1).astype(jnp.float32) / 255


@jax.jit
def l2_normalize(features: ArrayLike) -> jax.Array:
    """Features [n, f] scaled to length 1, float32; a zero row stays zero."""
    features = jnp.asarray(features, jnp.float32)
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(length, jnp.finfo(jnp.float32).tiny)
