"""Checks of what a model is built from."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from contrastive_jax.errors import UsageError


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises UsageError unless `value` is one of `choices`."""
    if value not in choices:
        raise UsageError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}.")


def check_at_least_one(**sizes: int) -> None:
    """Raises UsageError unless each is an integer of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"expected {name} to be an integer of at least 1, got {size!r}.")


def check_dtype(dtype: DTypeLike) -> None:
    """Raises UsageError unless `dtype` is that of floats."""
    try:
        found = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        found = False
    if not found:
        raise UsageError(f"expected dtype to be a floating dtype such as 'float32' or 'bfloat16', got {dtype!r}.")


def check_images(images: jax.Array, image_shape: Sequence[int | None]) -> None:
    """Raises UsageError unless images are floats [b, *image_shape]; None stands for any size."""
    fit = images.ndim == 4 and all(
        expected is None or size == expected for size, expected in zip(images.shape[1:], image_shape, strict=True)
    )
    if not fit or not jnp.issubdtype(images.dtype, jnp.floating):
        sizes = ", ".join(name if size is None else str(size) for name, size in zip("hwc", image_shape, strict=True))
        raise UsageError(
            f"expected images to be floats [b, {sizes}], got {images.dtype}{list(images.shape)}. Scale pixels to "
            "floats, and build the encoder for the shape of the images."
        )
