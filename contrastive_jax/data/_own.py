"""A user's own source of images, named as `package.module:function`."""

from __future__ import annotations

from collections.abc import Callable

from contrastive_jax import parts
from contrastive_jax.data import _check, _stored
from contrastive_jax.data._source import Source, labels_of, num_classes_of
from contrastive_jax.errors import MissingExtraError, SourceError, UsageError


def open_own(spec: str, *, image_size: int | None, stored_size: int | None) -> dict[str, Source]:
    """What the function `spec` returns for "train" and for "test", checked, and resized by the rule for all sources."""
    try:
        make = parts.load_part(spec)
    except UsageError as error:
        raise SourceError(str(error)) from error
    made = {split: _made(spec, make, split) for split in ("train", "test")}
    _check_alike(spec, made["train"], made["test"])
    shapes = [source.image_shape[:2] for source in made.values()]
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=spec)
    if side is None:
        return made
    return {
        split: source if source.image_shape[:2] == (side, side) else _stored.ResizedSource(source, side)
        for split, source in made.items()
    }


def _made(spec: str, make: Callable[..., Source], split: str) -> Source:
    try:
        source = make(split)
    except (MissingExtraError, SourceError):
        raise
    except Exception as error:  # whatever a user's function raises, it is why
        raise SourceError(
            f"{spec}: expected {spec.partition(':')[2]}({split!r}) to return a source, "
            f"got {type(error).__name__}: {parts.reason(error)}"
        ) from error
    try:
        _check.check(source)
    except SourceError as error:
        raise SourceError(f"{spec}: {error} (the {split} split)") from error
    return source


def _check_alike(spec: str, train: Source, test: Source) -> None:
    if train.image_shape[-1] != test.image_shape[-1]:
        raise SourceError(
            f"{spec}: expected test images with {train.image_shape[-1]} channels, as train's have, "
            f"got {test.image_shape[-1]}"
        )
    classes, test_labels = num_classes_of(train), labels_of(test)
    if classes is not None and test_labels is not None and test_labels.max() >= classes:
        raise SourceError(
            f"{spec}: expected test labels below {classes}, the number of train's classes, got {test_labels.max()}; "
            "give the train source `num_classes`"
        )
