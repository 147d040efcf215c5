"""Where images come from: one interface, random access, whatever the files."""

from __future__ import annotations

import os

from contrastive_jax.data._digits import open_digits
from contrastive_jax.data._folder import open_folder
from contrastive_jax.data._npz import open_npz
from contrastive_jax.data._source import SPLITS, ArraySource, Example, ReadSource, Source, SourceError
from contrastive_jax.data._tfds import open_tfds

__all__ = ["ArraySource", "Example", "ReadSource", "Source", "SourceError", "load"]


def load(
    spec: str,
    *,
    split: str,
    image_size: int | None = None,
    stored_size: int | None = None,
    data_dir: str | os.PathLike | None = None,
) -> Source:
    """Open one split of a data set.

    - `digits`: scikit-learn's 1,797 handwritten digits, 8x8, inside its package.
    - `tfds:NAME`, `tfds:NAME/config:version`: a prepared TensorFlow Datasets image set; `test` may be its validation.
    - `folder:PATH`: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*. Every image becomes RGB of eight bits a
      channel: sixteen become the higher eight; greyscale, CMYK and palettes are converted; transparency, and an
      orientation in the metadata, are ignored; of an animation it is the first picture.
    - `npz:PATH`: arrays `image`, `label` and perhaps `image_test`, `label_test`.

    A file that cannot be read so is refused by its name: one that is cut short, whose pixels are 32-bit numbers, that
    has more than 89 million of them, or, an .npz, that would expand to more than 1 GiB and a hundred times its size. No
    pickle is ever loaded.

    A data set without a test split is split 80/20 within each class, always in the same way. Nothing here imports
    TensorFlow: `tfds:` reads array_record files.

    Args:
        spec: which data set, in one of the forms above.
        split: "train" or "test".
        image_size: side of the square views that will be made, in pixels. Images that differ in shape are stored
            at 8/7 of it (224 -> 256).
        stored_size: side in pixels of the square that every image is resized (its shorter side) and centre-cropped
            to. By default images that share a shape keep it.
        data_dir: where TensorFlow Datasets keeps its data; by default the environment's TFDS_DATA_DIR, then its own
            default. Other sources ignore it.

    Returns:
        The split, all of whose images share one shape.

    Raises:
        SourceError: the spec is unknown, or what it names is missing, broken or of another form; names the file.

    Example:
        >>> train = load("digits", split="train")
        >>> len(train), train.image_shape, train.num_classes
        (1437, (8, 8, 1), 10)
        >>> train[0].image.dtype
        dtype('uint8')
    """
    if split not in SPLITS:
        raise SourceError(f"split is {split!r}; wanted one of {', '.join(SPLITS)}")
    kind, _, rest = spec.partition(":")
    match kind, bool(rest):
        case "digits", False:
            return open_digits(split, stored_size=stored_size)
        case "tfds", True:
            return open_tfds(rest, split, image_size=image_size, stored_size=stored_size, data_dir=data_dir)
        case "folder", True:
            return open_folder(rest, split, image_size=image_size, stored_size=stored_size)
        case "npz", True:
            return open_npz(rest, split, stored_size=stored_size)
    raise SourceError(f"data set {spec!r} is unknown; wanted digits, tfds:NAME, folder:PATH or npz:PATH")
