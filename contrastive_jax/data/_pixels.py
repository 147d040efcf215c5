"""Encoded images to uint8 arrays of one shape, with Pillow."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image

_MODES = {1: "L", 3: "RGB"}


def decode(file: str | BinaryIO, *, channels: int, stored_size: int | None) -> np.ndarray:
    """The image in `file`, uint8 [H, W, channels], made [stored_size, stored_size] where that is given.

    Raises whatever Pillow raises for a file that is not a whole image.
    """
    with Image.open(file) as image:
        return _to_array(image, channels=channels, stored_size=stored_size)


def header(file: str) -> tuple[int, int]:
    """(height, width) of the image in `file`, without decoding it."""
    with Image.open(file) as image:
        return image.height, image.width


def resize_array(image: np.ndarray, stored_size: int) -> np.ndarray:
    """`image`, uint8 [H, W, C] with C 1 or 3, as uint8 [stored_size, stored_size, C]."""
    channels = image.shape[-1]
    return _to_array(
        Image.fromarray(image[..., 0] if channels == 1 else image), channels=channels, stored_size=stored_size
    )


def _to_array(image: Image.Image, *, channels: int, stored_size: int | None) -> np.ndarray:
    image = _to_mode(image, _MODES[channels])
    if stored_size is not None and image.size != (stored_size, stored_size):
        # The centre square is all that a shorter-side resize and a centre crop would keep; one resampling makes both.
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((stored_size, stored_size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))  # Pillow would clip at 255
    if image.mode == "P":
        image = image.convert("RGBA")  # Pillow warns when a transparent palette goes straight to RGB
    return image if image.mode == mode else image.convert(mode)
