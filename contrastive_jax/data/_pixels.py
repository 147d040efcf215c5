"""Encoded images to uint8 arrays of one shape, with Pillow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

_MODES = {1: "L", 3: "RGB"}
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow would hand an EPS to Ghostscript
FORMATS = f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}"
_MAX_PIXELS = 89_478_485  # Pillow only warns beyond its limit, this one, and refuses beyond twice as many

_SIXTEEN_BITS_AS_I = ("PNG", "PPM")  # formats without 32 bits, whose 16 Pillow may hold in 32


def decode(file: str | BinaryIO, *, shape: tuple[int, int, int], stored_size: int | None) -> np.ndarray:
    """The image in `file`, uint8 of `shape` [H, W, C], made [stored_size, stored_size] where that is given.

    Sixteen bits a channel become the higher eight; CMYK and palettes become RGB; transparency and an orientation in the
    metadata are ignored; of an animation it is the first picture.

    Raises ValueError for an image of another shape, of more pixels than 89 million, or of no fixed range of values;
    otherwise whatever Pillow raises for a file that is not a whole image.
    """
    with _open(file) as image:
        array = _to_array(image, channels=shape[-1], stored_size=stored_size)
    if array.shape != shape:
        raise ValueError(f"it has shape {list(array.shape)}; wanted {list(shape)}")
    return array


def header(file: str) -> tuple[int, int]:
    """(height, width) of the image in `file`, without decoding it."""
    with _open(file) as image:
        return image.height, image.width


@contextlib.contextmanager
def _open(file: str | BinaryIO) -> Iterator[Image.Image]:
    with Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"it is {image.width} pixels wide and {image.height} high; at most {_MAX_PIXELS} are read")
        yield image


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
    # Pillow would clip what is beyond 255 to white.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS_AS_I):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, of no fixed range; wanted 8 or 16 bits a channel")
    if image.mode == "P":
        image = image.convert("RGBA")  # Pillow warns when a transparent palette goes straight to RGB
    return image if image.mode == mode else image.convert(mode)
