"""Features of a whole data set, as NumPy arrays."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from contrastive_jax.errors import UsageError
from contrastive_jax.evaluation._checks import check_finite


def extract(
    feature_fn: Callable[[Any], ArrayLike], batches: Iterable[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of every row of `batches`, in order.

    Args:
      feature_fn: images [b, h, w, c] to features [b, f], any float dtype. Jit it, and give all batches one shape, so
        that it compiles once.
      batches: mappings with `image` [b, h, w, c], `label` [b] and, where a batch is padded, `mask` [b] bool, True for
        the rows that count.

    Returns:
      `(features, labels)`: [n, f] float32 and [n] int32.

    Raises:
      UsageError: there are no batches, `feature_fn` gives another shape, or features that are not finite.

    Example:
      >>> batch = {"image": np.zeros((4, 8, 8, 1), np.uint8), "label": np.zeros(4), "mask": np.arange(4) < 3}
      >>> features, labels = extract(raw_pixels, [batch])
      >>> features.shape
      (3, 64)
    """
    features, labels = [], []
    for batch in batches:
        mask = batch.get("mask", slice(None))
        found, label = np.asarray(feature_fn(batch["image"])), np.asarray(batch["label"], np.int32)
        if found.ndim != 2 or len(found) != len(label):
            raise UsageError(
                f"expected feature_fn to give features [{len(label)}, f] of {len(label)} images, got "
                f"{list(found.shape)}. Pool over height and width, or flatten."
            )
        with np.errstate(over="ignore"):
            features.append(found.astype(np.float32)[mask])
        labels.append(label[mask])
    if not features:
        raise UsageError("expected at least one batch, got none. Check that the data set is not empty.")
    joined = np.concatenate(features)
    check_finite("features", joined)
    return joined, np.concatenate(labels)


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
