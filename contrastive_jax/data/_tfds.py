"""A TensorFlow Datasets image data set, read from its array_record files without TensorFlow."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import extras
from contrastive_jax.data import _pixels, _stored
from contrastive_jax.errors import MissingExtraError, SourceError
from contrastive_jax.parts import reason

_SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation")}
_LABEL_CHUNK = 4096
_INSTALL = 'pip install "contrastive_jax[prepare]" (in a checkout: pip install -e ".[prepare]")'


def open_tfds(
    name: str,
    splits: tuple[str, ...],
    *,
    image_size: int | None,
    stored_size: int | None,
    data_dir: str | os.PathLike[str] | None,
    cache_bytes: float,
) -> dict[str, _stored.ReadSource]:
    """The splits of the TFDS data set `name`, or `name/config:version`, prepared beforehand."""
    what = f"tfds:{name}"
    tfds = extras.require("tensorflow_datasets", extra="tfds", what=what)  # takes half a second to import
    extras.require("array_record", extra="tfds", what=what)
    builder = _builder(tfds, name, data_dir)
    features = _image_features(tfds, name, builder.info.features)
    height, width, channels = features["image"].shape
    shapes = [(height, width)] if height is not None and width is not None else []
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=what)
    shape = (height, width, channels) if side is None else (side, side, channels)
    num_classes = features["label"].num_classes
    records = {split: _records(tfds, name, builder, split) for split in splits}
    keep = _stored.fits(sum(map(len, records.values())), shape, cache_bytes)
    return {
        split: _source(what, builder, records[split], split, shape, side, num_classes, keep=keep) for split in splits
    }


def _source(
    what: str,
    builder: Any,
    records: Any,
    split: str,
    shape: tuple[int, int, int],
    side: int | None,
    num_classes: int,
    *,
    keep: bool,
) -> _stored.ReadSource:
    def read(indices: list[int]) -> Iterator[np.ndarray]:
        for index, record in zip(indices, records.__getitems__(indices), strict=True):
            try:
                yield _pixels.decode(io.BytesIO(record["image"]), shape=shape, stored_size=side)
            except MissingExtraError:
                raise
            except Exception as error:  # whatever Pillow raises, this record is why
                raise SourceError(f"{what}: {split} image {index} cannot be decoded ({reason(error)})") from error

    def read_labels() -> np.ndarray:
        chunks = (range(start, len(records))[:_LABEL_CHUNK] for start in range(0, len(records), _LABEL_CHUNK))
        return np.array([record["label"] for chunk in chunks for record in records.__getitems__(list(chunk))])

    return _stored.ReadSource(
        what,
        read,
        read_labels,
        length=len(records),
        image_shape=shape,
        num_classes=num_classes,
        identity=lambda: f"tfds {builder.info.full_name} {split}",
        keep=keep,
    )


def _builder(tfds: Any, name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    try:
        return tfds.builder(name, file_format="array_record", data_dir=data_dir and Path(data_dir).expanduser())
    except ImportError as error:
        raise SourceError(
            f"tfds:{name}: this data set cannot be described without TensorFlow; run: {_INSTALL}"
        ) from error
    except (ValueError, AssertionError) as error:
        said = str(error).splitlines()[0].rpartition('": ')[-1]  # past TFDS's list of arguments
        raise SourceError(
            f"tfds:{name}: expected a data set, config and version of TensorFlow Datasets, got another name ({said}); "
            "see https://www.tensorflow.org/datasets/catalog/overview"
        ) from error


def _image_features(tfds: Any, name: str, features: Any) -> dict[str, Any]:
    found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = found.get("image"), found.get("label")
    is_image = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8 and image.shape[-1] in (1, 3)
    if not is_image or not isinstance(label, tfds.features.ClassLabel):
        raise SourceError(
            f"tfds:{name}: expected a feature 'image' (uint8, 1 or 3 channels) and a class 'label', got "
            f"{' '.join(repr(features).split())}"
        )
    return found


def _records(tfds: Any, name: str, builder: Any, split: str) -> Any:
    """Random access to the records of the split, `image` still encoded."""
    available = list(builder.info.splits)
    if not available:
        raise _not_prepared(name, builder, "is not prepared")
    chosen = next((candidate for candidate in _SPLIT_NAMES[split] if candidate in available), None)
    if chosen is None:
        expected = " or ".join(_SPLIT_NAMES[split])
        raise SourceError(f"tfds:{name}: expected a {expected} split, got only {', '.join(available)}")
    try:
        return builder.as_data_source(chosen, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise _not_prepared(name, builder, "is prepared, but not as array_record,") from error


def _not_prepared(name: str, builder: Any, state: str) -> SourceError:
    where = builder.data_dir_root
    prepare = f"tfds.builder({name!r}, file_format='array_record', data_dir={str(where)!r}).download_and_prepare()"
    return SourceError(
        f"tfds:{name} {state} in {where}; run: {_INSTALL}, "
        f'then: python -c "import tensorflow_datasets as tfds; {prepare}"'
    )
