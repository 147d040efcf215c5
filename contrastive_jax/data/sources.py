"""Where images come from: any object with `__len__`, `image_shape` and `take`, and what this package can open."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import NamedTuple

from contrastive_jax import parts
from contrastive_jax.data._check import check, take
from contrastive_jax.data._digits import open_digits
from contrastive_jax.data._fingerprint import compare_fingerprints, fingerprint
from contrastive_jax.data._folder import open_folder
from contrastive_jax.data._npz import open_npz
from contrastive_jax.data._own import open_own
from contrastive_jax.data._source import SPLITS, Source, labels_of, name_of, num_classes_of
from contrastive_jax.data._spec import KINDS, parse
from contrastive_jax.data._stored import CACHE_BYTES, ArraySource, ReadSource
from contrastive_jax.data._tfds import open_tfds
from contrastive_jax.data._whole import WholeSource, open_whole_folder, open_whole_npz, store
from contrastive_jax.errors import SourceError

__all__ = [
    "ArraySource",
    "Source",
    "Splits",
    "bytes_to_keep",
    "check",
    "compare_fingerprints",
    "fingerprint",
    "is_kept",
    "labels_of",
    "load",
    "load_splits",
    "load_whole",
    "name_of",
    "names_of",
    "num_classes_of",
    "store",
    "take",
]

_FORMS = "digits, tfds:NAME, folder:PATH, npz:PATH or package.module:function"


class Splits(NamedTuple):
    """The two splits of a data set; their images share one shape."""

    train: Source
    test: Source


def load(
    spec: str,
    *,
    split: str,
    image_size: int | None = None,
    stored_size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_bytes: float = CACHE_BYTES,
) -> Source:
    """Open one split of a data set.

    - `digits`: scikit-learn's 1,797 handwritten digits, 8x8, inside its package.
    - `tfds:NAME`, `tfds:NAME/config:version`: a prepared TensorFlow Datasets image set; `test` may be its validation.
      `tfds:NAME?split=SPLIT` trains on another split, such as `tfds:stl10?split=unlabelled`.
    - `folder:PATH`: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*; or images without labels, at any depth
      of PATH/train and PATH/test, or of PATH. Several folders are a JSON list, `folder:["PATH", "PATH"]`. Every image
      becomes RGB of eight bits a channel: sixteen become the higher eight; greyscale, CMYK and palettes are converted;
      transparency, and an orientation in the metadata, are ignored; of an animation it is the first picture.
    - `npz:PATH`: arrays `image` and perhaps `label`, and perhaps `image_test`, `label_test`.
    - `package.module:function`: the function is imported, called with "train" and with "test", and returns a source:
      any object with `__len__`, `image_shape` and `take`, see `Source`.

    A file that cannot be read so is refused by its name: one that is cut short, whose pixels are 32-bit numbers, that
    has more than 89 million of them, or, an .npz, that would expand to more than 1 GiB and a hundred times its size. No
    pickle is ever loaded.

    `?labels=none` after any of these reads the images without labels. That images have none is said in a line on
    standard error, with the reason.

    A data set without a test split is split 80/20 within each class; of one without labels, a tenth is held out, at
    most 10,000. Both are always done in the same way. Nothing here imports TensorFlow: `tfds:` reads array_record
    files.

    Args:
        spec: which data set, in one of the forms above.
        split: "train" or "test".
        image_size: side of the square views that will be made, in pixels. Images of one shape with no more pixels
            than a square of 8/7 of it (224 -> 256) are stored as they are, all others as that square. Both splits
            count, so that they share one shape.
        stored_size: side in pixels of the square that every image is resized (its shorter side) and centre-cropped
            to, in place of that rule.
        data_dir: where TensorFlow Datasets keeps its data; by default the environment's TFDS_DATA_DIR, then its own
            default. Other sources ignore it.
        cache_bytes: images of a folder or of TFDS are kept in memory once they are decoded, if all that are opened
            need no more than this, as uint8; if they need more, each is decoded whenever it is needed. The images are
            the same. Other sources ignore it.

    Returns:
        The split, all of whose images share one shape.

    Raises:
        SourceError: the spec is unknown, or what it names is missing, broken or of another form; names the file.
        MissingExtraError: a package that reads this kind of data is not installed.

    Example:
        >>> train = load("digits", split="train")
        >>> len(train), train.image_shape, num_classes_of(train)
        (1437, (8, 8, 1), 10)
        >>> train.take(np.array([3, 0])).shape
        (2, 8, 8, 1)
    """
    if split not in SPLITS:
        raise SourceError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    opened = _open(
        spec,
        (split,),
        image_size=image_size,
        stored_size=stored_size,
        data_dir=data_dir,
        cache_bytes=cache_bytes,
    )
    return opened[split]


def load_splits(
    spec: str,
    *,
    image_size: int | None = None,
    stored_size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_bytes: float = CACHE_BYTES,
) -> Splits:
    """Open both splits of a data set at once: folders are listed, and own functions called, once.

    Args:
        spec, image_size, stored_size, data_dir, cache_bytes: as for `load`.

    Returns:
        (train, test), whose images share one shape.

    Raises:
        SourceError, MissingExtraError: as `load`, and if there is no test split.

    Example:
        >>> train, test = load_splits("digits")
        >>> len(train), len(test)
        (1437, 360)
    """
    opened = _open(
        spec,
        SPLITS,
        image_size=image_size,
        stored_size=stored_size,
        data_dir=data_dir,
        cache_bytes=cache_bytes,
    )
    return Splits(**opened)


def bytes_to_keep(*splits: Source) -> int:
    """The `cache_bytes` that would keep these splits in memory; 0 if none of them is decoded whenever it is needed.

    Args:
        splits: sources of one data set.

    Returns:
        Bytes of all images of those that `load` or `load_splits` opened, and does not keep.

    Example:
        >>> bytes_to_keep(load("digits", split="train"))
        0
    """
    again = [source for source in splits if isinstance(source, ReadSource) and not source.is_kept]
    return sum(len(source) * math.prod(source.image_shape) for source in again)


def is_kept(source: Source) -> bool:
    """Whether a source of `load` or `load_splits` decodes each image once, and keeps it in memory from then on.

    Args:
        source: any source.

    Example:
        >>> is_kept(load("digits", split="train"))  # in memory before anything is decoded
        False
    """
    return isinstance(source, ReadSource) and source.is_kept


def load_whole(
    spec: str,
    *,
    image_size: int | None = None,
    stored_size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Source:
    """Open every image of a data set as one source, for what encodes them all; `names_of` says which is which.

    - `folder:PATH`: every image below PATH at any depth, in the order of their paths. Labels are there if each image
      lies in a class, as `load` reads them.
    - `npz:PATH`: the images of `image`, then of `image_test`, in the order of the file; labels if both have them.
    - `tfds:NAME?split=SPLIT`: that split.
    - Any other: the training split, then the test split.

    Args:
        spec, image_size, stored_size, data_dir: as for `load`.

    Raises:
        SourceError, MissingExtraError: as `load`.

    Example:
        >>> whole = load_whole("digits")
        >>> len(whole), names_of(whole)[1436:1438]
        (1797, ['train/1436', 'test/0'])
    """
    parsed = parse(spec)
    if parsed.kind == "folder" and parsed.rest:
        return open_whole_folder(parsed, image_size=image_size, stored_size=stored_size)
    if parsed.kind == "npz" and parsed.rest:
        return open_whole_npz(parsed.rest, image_size=image_size, stored_size=stored_size, labels=parsed.labels)
    if parsed.split is not None:
        source = load(spec, split="train", image_size=image_size, stored_size=stored_size, data_dir=data_dir)
        return WholeSource([(parsed.split, source)])
    splits = load_splits(spec, image_size=image_size, stored_size=stored_size, data_dir=data_dir)
    return WholeSource([(name, getattr(splits, name)) for name in SPLITS])


def names_of(source: Source) -> list[str]:
    """What calls each image of a source, in order: its `names`, such as paths of files, else its index.

    Example:
        >>> names_of(ArraySource(np.zeros((2, 8, 8), np.uint8)))
        ['0', '1']
    """
    names = getattr(source, "names", None)
    return [str(index) for index in range(len(source))] if names is None else [str(name) for name in names]


def _open(
    spec: str,
    splits: tuple[str, ...],
    *,
    image_size: int | None,
    stored_size: int | None,
    data_dir: str | os.PathLike[str] | None,
    cache_bytes: float,
) -> Mapping[str, Source]:
    parsed = parse(spec)
    sizes = {"image_size": image_size, "stored_size": stored_size}
    match parsed.kind, bool(parsed.rest):
        case "digits", False:
            return open_digits(**sizes, labels=parsed.labels)
        case "tfds", True:
            return open_tfds(parsed, splits, **sizes, data_dir=data_dir, cache_bytes=cache_bytes)
        case "folder", True:
            return open_folder(parsed, splits, **sizes, cache_bytes=cache_bytes)
        case "npz", True:
            return open_npz(parsed.rest, **sizes, labels=parsed.labels)
    if parsed.kind not in KINDS and parts.is_part(spec):
        return open_own(spec, **sizes)
    raise SourceError(f"expected a data set {_FORMS}, got {spec!r}")
