"""A TensorFlow Datasets image data set, read from its array_record files without TensorFlow."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.data import _pixels, _source

_SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation")}
_LABEL_CHUNK = 4096
_INSTALL = 'pip install "contrastive_jax[prepare]" (in a checkout: pip install -e ".[prepare]")'


def open_tfds(
    name: str, split: str, *, image_size: int | None, stored_size: int | None, data_dir: str | os.PathLike | None
) -> _source.Source:
    """The split `split` of the TFDS data set `name`, or `name/config:version`, prepared beforehand."""
    import tensorflow_datasets as tfds  # imported here because it takes half a second and only these sources need it

    builder = _builder(tfds, name, data_dir)
    features = _image_features(tfds, name, builder.info.features)
    records = _records(tfds, name, builder, split)
    height, width, channels = features["image"].shape
    if stored_size is not None or height is None or width is None:
        stored_size = _source.stored_size_of(image_size, stored_size, name=f"tfds:{name}")
        height = width = stored_size
    shape = (height, width, channels)

    def read(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for index, record in zip(indices, records.__getitems__(indices), strict=True):
            try:
                image = _pixels.decode(io.BytesIO(record["image"]), shape=shape, stored_size=stored_size)
            except Exception as error:  # whatever Pillow raises, this record is why
                raise _source.SourceError(
                    f"tfds:{name}: {split} image {index} cannot be decoded ({_source.reason(error)})"
                ) from error
            yield image, int(record["label"])

    def read_labels() -> np.ndarray:
        chunks = (range(start, len(records))[:_LABEL_CHUNK] for start in range(0, len(records), _LABEL_CHUNK))
        return np.array([record["label"] for chunk in chunks for record in records.__getitems__(list(chunk))])

    return _source.ReadSource(
        f"tfds:{name}",
        read,
        read_labels,
        length=len(records),
        image_shape=shape,
        num_classes=features["label"].num_classes,
    )


def _builder(tfds: Any, name: str, data_dir: str | os.PathLike | None) -> Any:
    try:
        return tfds.builder(name, file_format="array_record", data_dir=data_dir and Path(data_dir).expanduser())
    except ImportError as error:
        raise _source.SourceError(
            f"tfds:{name}: this data set cannot be described without TensorFlow; run: {_INSTALL}"
        ) from error
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0].rpartition('": ')[-1]  # past TFDS's list of arguments
        raise _source.SourceError(
            f"tfds:{name}: TensorFlow Datasets has no such data set, config or version ({reason}); "
            "see https://www.tensorflow.org/datasets/catalog/overview"
        ) from error


def _image_features(tfds: Any, name: str, features: Any) -> dict[str, Any]:
    found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = found.get("image"), found.get("label")
    is_image = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8 and image.shape[-1] in (1, 3)
    if not is_image or not isinstance(label, tfds.features.ClassLabel):
        raise _source.SourceError(
            f"tfds:{name}: wanted a feature 'image' (uint8, 1 or 3 channels) and a class 'label', found {features!r}"
        )
    return found


def _records(tfds: Any, name: str, builder: Any, split: str) -> Any:
    """Random access to the records of the split, `image` still encoded."""
    available = list(builder.info.splits)
    if not available:
        raise _not_prepared(name, builder, "is not prepared")
    chosen = next((candidate for candidate in _SPLIT_NAMES[split] if candidate in available), None)
    if chosen is None:
        wanted = " or ".join(_SPLIT_NAMES[split])
        raise _source.SourceError(f"tfds:{name}: has no {wanted} split, only {', '.join(available)}")
    try:
        return builder.as_data_source(chosen, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise _not_prepared(name, builder, "is prepared, but not as array_record,") from error


def _not_prepared(name: str, builder: Any, state: str) -> _source.SourceError:
    where = builder.data_dir_root
    prepare = f"tfds.builder({name!r}, file_format='array_record', data_dir={str(where)!r}).download_and_prepare()"
    return _source.SourceError(
        f"tfds:{name} {state} in {where}; run: {_INSTALL}, "
        f'then: python -c "import tensorflow_datasets as tfds; {prepare}"'
    )
