"""A picture of images and their nearest neighbours."""

import math
import os
from typing import Any

from contrastive_jax.jobs.machine import files
from contrastive_jax.jobs.neighbours import Neighbours

_NUM_GROUPS = 2
_TILE_INCHES = 0.95
_OTHER = "#D55E00"  # the frame of an image of another class than the query's


def save_neighbours_picture(path: str | os.PathLike[str], found: Neighbours) -> None:
    """Write a picture of the query images, each next to its nearest, with the cosine similarity of their features.

    Where there are labels, a neighbour of another class than the query's has an orange frame.

    Args:
        path: the file to write; its suffix sets the format. An existing file is replaced atomically.
        found: of `neighbours.find`.
    """
    from matplotlib.figure import Figure  # imported here because the import takes half a second

    count = found.nearest.shape[1]
    rows = math.ceil(len(found.queries) / _NUM_GROUPS)
    inches = (_TILE_INCHES * _NUM_GROUPS * (count + 1.4), 1.15 * _TILE_INCHES * rows + 0.5)
    figure = Figure(figsize=inches, dpi=150)
    title = "Test images and the training images nearest to them (cosine similarity of the features)"
    figure.suptitle(title if found.same_class is None else f"{title}; framed: of another class", fontsize=9)
    groups = figure.add_gridspec(
        1, _NUM_GROUPS, left=0.02, right=0.98, wspace=0.06, bottom=0.01, top=1 - 0.55 / inches[1]
    )
    for number in range(_NUM_GROUPS):
        axes = groups[0, number].subgridspec(rows, count + 1, wspace=0.08, hspace=0.25).subplots(squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for row, q in enumerate(range(number * rows, min((number + 1) * rows, len(found.queries)))):
            _show(axes[row, 0], found.queries[q], f"test image {q + 1}")
            for k in range(count):
                other = found.same_class is not None and not found.same_class[q, k]
                _show(axes[row, k + 1], found.nearest[q, k], f"{found.similarities[q, k]:.3f}", framed=other)
    with files.replace_atomically(path) as temporary:
        figure.savefig(temporary)


def _show(axis: Any, image: Any, title: str, *, framed: bool = False) -> None:
    grey = image.shape[-1] == 1
    axis.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)
    axis.set_title(title, fontsize=6.5, pad=2)
    if framed:
        axis.set_frame_on(True)
        for spine in axis.spines.values():
            spine.set(color=_OTHER, linewidth=2.5)
