"""A folder of JPEGs like those of ImageNet, made from numbers: nothing is downloaded, and they are always the same.

Noise whose amplitude falls with frequency as in nature, with shapes; 500 x 375 pixels and the like, quality 92.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_SIZES = ((500, 375), (375, 500), (500, 333), (500, 400), (640, 480))  # (width, height)
_CLASSES = 4


def make_photograph(number: int) -> Image.Image:
    """A picture with the statistics of a photograph, always the same for the same number."""
    rng = np.random.default_rng(number)
    width, height = _SIZES[number % len(_SIZES)]
    light, warm, green = (_make_noise(rng, height, width, slope) for slope in (1.1, 1.4, 1.4))
    colours = 45 * light[..., None] + 18 * np.stack([warm, 0.2 * green - 0.5 * warm, green], -1)
    image = Image.fromarray(np.clip(128 + colours, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, radius = rng.integers(width), rng.integers(height), rng.integers(15, 90)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour, width=int(rng.integers(1, 6)))
    return image


def _make_noise(rng: np.random.Generator, height: int, width: int, slope: float) -> np.ndarray:
    """Noise [height, width] of unit variance whose amplitude falls as frequency to the power of -slope."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    waves = rng.normal(size=(2, *frequency.shape))
    noise = np.fft.irfft2((waves[0] + 1j * waves[1]) / frequency**slope, (height, width))
    return noise / noise.std()


def make_folder(root: Path, count: int) -> None:
    """Write photographs to root/train/CLASS/*.jpg, and one for each class to root/test; those there are kept."""
    for split, size in (("train", count), ("test", _CLASSES)):
        for number in range(size):
            path = root / split / str(number % _CLASSES) / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                make_photograph(number).save(path, quality=92)
