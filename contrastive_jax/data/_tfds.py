"""A TensorFlow Datasets image data set, read from its array_record files without TensorFlow."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import extras
from contrastive_jax.data import _check, _pixels, _spec, _stored
from contrastive_jax.errors import MissingExtraError, SourceError
from contrastive_jax.parts import reason

_SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation")}
_LABEL_CHUNK = 4096
_INSTALL = 'pip install "contrastive_jax[prepare]" (in a checkout: pip install -e ".[prepare]")'


def open_tfds(
    spec: _spec.Spec,
    splits: tuple[str, ...],
    *,
    image_size: int | None,
    stored_size: int | None,
    data_dir: str | os.PathLike[str] | None,
    cache_bytes: float,
) -> dict[str, _stored.ReadSource]:
    """The splits of a TFDS data set, `name` or `name/config:version`, prepared beforehand.

    Where the images have no labels, that is said in a line on standard error.
    """
    name, what = spec.rest, f"tfds:{spec.rest}"
    tfds = extras.require("tensorflow_datasets", extra="tfds", what=what)  # takes half a second to import
    extras.require("array_record", extra="tfds", what=what)
    builder = _builder(tfds, name, data_dir)
    features = _image_features(tfds, name, builder.info.features)
    height, width, channels = features["image"].shape
    shapes = [(height, width)] if height is not None and width is not None else []
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=what)
    shape = (height, width, channels) if side is None else (side, side, channels)
    named = {split: _choose_split(name, builder, split, spec.split) for split in splits}
    records = {split: _records(tfds, name, builder, chosen) for split, chosen in named.items()}
    keep = _stored.fits(sum(map(len, records.values())), shape, cache_bytes)
    found = {}
    for split, chosen in named.items():
        why = _why_no_labels(tfds, features, records[split]) if spec.labels else "as asked"
        num_classes = None if why else features["label"].num_classes
        found[split] = _source(what, builder, records[split], chosen, shape, side, num_classes, keep=keep)
        if why:
            print(f"{what}: read {len(records[split])} images of {chosen} without labels: {why}", file=sys.stderr)
    return found


def _source(
    what: str,
    builder: Any,
    records: Any,
    split: str,
    shape: tuple[int, int, int],
    side: int | None,
    num_classes: int | None,
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
        labels = [record["label"] for chunk in chunks for record in records.__getitems__(list(chunk))]
        return _check.label_array(f"{what}: {split} labels", np.array(labels, np.int64), len(records))

    return _stored.ReadSource(
        what,
        read,
        None if num_classes is None else read_labels,
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
    image = found.get("image")
    is_image = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8 and image.shape[-1] in (1, 3)
    if not is_image:
        raise SourceError(
            f"tfds:{name}: expected a feature 'image' (uint8, 1 or 3 channels), got {' '.join(repr(features).split())}"
        )
    return found


def _why_no_labels(tfds: Any, features: dict[str, Any], records: Any) -> str:
    """Why the images of a split have no labels, in part of a line; nothing if they have."""
    if "label" not in features:
        return "there is no feature 'label'"
    if not isinstance(features["label"], tfds.features.ClassLabel):
        return f"the feature 'label' is no class, but {type(features['label']).__name__}"
    # TFDS gives the images of a split without labels the label -1.
    return "its labels are -1" if len(records) and int(records[0]["label"]) < 0 else ""


def _choose_split(name: str, builder: Any, split: str, train: str | None) -> str:
    """What the data set calls a split; `train` names another one to train on."""
    available = list(builder.info.splits)
    if not available:
        raise _not_prepared(name, builder, "is not prepared")
    names = (train,) if train is not None and split == "train" else _SPLIT_NAMES[split]
    chosen = next((candidate for candidate in names if candidate in available), None)
    if chosen is None:
        raise SourceError(f"tfds:{name}: expected the split {' or '.join(names)}, got only {', '.join(available)}")
    if split == "test" and chosen == train:
        raise SourceError(f"tfds:{name}?split={train}: expected another split than the test split {chosen}")
    return chosen


def _records(tfds: Any, name: str, builder: Any, chosen: str) -> Any:
    """Random access to the records of the split, `image` still encoded."""
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
