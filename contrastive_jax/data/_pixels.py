"""Encoded images to uint8 arrays of one shape, with Pillow."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from contrastive_jax import extras

if TYPE_CHECKING:
    from PIL import Image

_MODES = {1: "L", 3: "RGB"}
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow would hand an EPS to Ghostscript
FORMATS = f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}"
_MAX_PIXELS = 89_478_485  # Pillow only warns beyond its limit, this one, and refuses beyond twice as many
_SIXTEEN_BITS_AS_I = ("PNG", "PPM")  # formats without 32 bits, whose 16 Pillow may hold in 32
_JPEG = ("JPEG", "MPO")  # Pillow's name for a JPEG that more pictures follow, as phones write them
_ENDS = {**dict.fromkeys(_JPEG, b"\xff\xd9"), "PNG": b"IEND\xaeB`\x82"}
_DRAFT_GAP = 2  # a JPEG is decoded at least so many times larger than stored, so that resampling still averages


def _pillow() -> Any:
    return extras.require("PIL.Image", extra="train", what="reading images")


@functools.cache
def endings() -> frozenset[str]:
    """The endings that files of the formats read here have, in lower case: ".png", ".jpg", ...

    Example:
        >>> {".png", ".jfif", ".pbm"} <= endings()
        True
    """
    return frozenset(ending for ending, form in _pillow().registered_extensions().items() if form in _FORMATS)


def decode(file: str | BinaryIO, *, shape: tuple[int, int, int], stored_size: int | None) -> np.ndarray:
    """The image in `file`, uint8 of `shape` [h, w, c], made [stored_size, stored_size] where that is given.

    Sixteen bits a channel become the higher eight; CMYK and palettes become RGB; transparency and an orientation in the
    metadata are ignored; of an animation it is the first picture.

    Raises ValueError for an image of another shape, of more pixels than 89 million, or of no fixed range of values;
    otherwise whatever Pillow raises for a file that is not a whole image.
    """
    with _open(file) as image:
        if stored_size is not None and image.format in _JPEG:
            image.draft(None, (_DRAFT_GAP * stored_size, _DRAFT_GAP * stored_size))  # decodes fewer pixels
        array = _to_array(image, channels=shape[-1], stored_size=stored_size)
    if array.shape != shape:
        raise ValueError(f"expected shape {list(shape)}, got {list(array.shape)}")
    return array


def header(file: str) -> tuple[int, int]:
    """(height, width) of the image in `file`, without decoding it; raises for a JPEG or PNG that is cut short.

    Such a file lacks the mark of its end. Some writers leave bytes after the mark: only those files are decoded.
    """
    with _open(file) as image:
        size = image.height, image.width
        end = _ENDS.get(image.format or "")
        if end is not None and not _ends_with(image, end):
            image.draft(None, (1, 1))  # as few pixels of it as there can be
            image.load()
        return size


def _ends_with(image: Any, end: bytes) -> bool:
    """Whether the file of an image that is open, and not decoded yet, ends with these bytes."""
    position = image.fp.tell()
    try:
        image.fp.seek(-len(end), os.SEEK_END)
        return image.fp.read() == end
    finally:
        image.fp.seek(position)


@contextlib.contextmanager
def _open(file: str | BinaryIO) -> Iterator[Image.Image]:
    with _pillow().open(file, formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(
                f"expected at most {_MAX_PIXELS} pixels, got {image.width} x {image.height} = "
                f"{image.width * image.height}"
            )
        yield image


def resize_array(image: np.ndarray, stored_size: int) -> np.ndarray:
    """`image`, uint8 [h, w, c] with c 1 or 3, as uint8 [stored_size, stored_size, c]."""
    channels = image.shape[-1]
    return _to_array(
        _pillow().fromarray(image[..., 0] if channels == 1 else image), channels=channels, stored_size=stored_size
    )


def _to_array(image: Image.Image, *, channels: int, stored_size: int | None) -> np.ndarray:
    image = _to_mode(image, _MODES[channels])
    if stored_size is not None and image.size != (stored_size, stored_size):
        # The centre square is all that a shorter-side resize and a centre crop would keep; one resampling makes both.
        # Pillow's bilinear filter widens with the reduction, as torchvision's Resize does on PIL images.
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((stored_size, stored_size), _pillow().Resampling.BILINEAR, box=box)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    # Pillow would clip what is beyond 255 to white.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS_AS_I):
        image = _pillow().fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("expected 8 or 16 bits a channel, got 32-bit numbers, which have no fixed range")
    if image.mode == "P":
        image = image.convert("RGBA")  # Pillow warns when a transparent palette goes straight to RGB
    return image if image.mode == mode else image.convert(mode)
