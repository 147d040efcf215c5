"""A picture of images and their views."""

from __future__ import annotations

import math
import os

import numpy as np

from contrastive_jax.jobs.machine import files

_NUM_IMAGES = 16
_NUM_GROUPS = 4
_TILE_INCHES = 0.8


def save_views_picture(
    path: str | os.PathLike[str],
    images: np.ndarray,
    views: np.ndarray,
    *,
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
) -> None:
    """Write a picture of the first 16 images, each next to its views.

    Args:
        path: the file to write; its suffix sets the format. An existing file is replaced atomically.
        images: uint8 [b, H, W, C].
        views: float32 [num_views, b, size, size, C], from `random_views`.
        mean, std: the normalisation of the views, which the picture undoes.
    """
    from matplotlib.figure import Figure  # imported here because the import takes half a second

    images, views = np.asarray(images)[:_NUM_IMAGES], np.asarray(views)[:, :_NUM_IMAGES]
    pixels = np.clip(views * np.asarray(std, np.float32) + np.asarray(mean, np.float32), 0, 1)
    tiles = [[image / 255, *own] for image, own in zip(images, pixels.swapaxes(0, 1), strict=True)]
    titles = ["original", *(f"view {view + 1}" for view in range(len(views)))]
    rows = math.ceil(len(tiles) / _NUM_GROUPS)
    figure = Figure(figsize=(_TILE_INCHES * _NUM_GROUPS * (len(titles) + 0.3), _TILE_INCHES * rows + 0.3), dpi=150)
    groups = figure.add_gridspec(
        1, _NUM_GROUPS, left=0.01, right=0.99, wspace=0.08, bottom=0.02, top=1 - 0.3 / (rows + 0.4)
    )
    for number in range(_NUM_GROUPS):
        axes = groups[0, number].subgridspec(rows, len(titles), wspace=0.06, hspace=0.06).subplots(squeeze=False)
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title, fontsize=7, pad=3)
        for row, row_axes in zip(tiles[number * rows :] + [[]] * rows, axes, strict=False):
            _show(row, row_axes)
    with files.replace_atomically(path) as temporary:
        figure.savefig(temporary)


def _show(row: list[np.ndarray], axes: np.ndarray) -> None:
    for axis in axes:
        axis.set_axis_off()
    for axis, tile in zip(axes, row, strict=False):
        grey = tile.shape[-1] == 1
        axis.imshow(tile[..., 0] if grey else tile, cmap="gray" if grey else None, vmin=0, vmax=1)
