"""Open the images of a run: those it trains on, and those it is evaluated on."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from contrastive_jax.data import sources
from contrastive_jax.errors import SourceError, UsageError
from contrastive_jax.jobs import parts
from contrastive_jax.losses import contract


class Data(NamedTuple):
    """The images of a run.

    Attributes:
      train: what it trains on.
      test: what it is evaluated on.
      bank: what probes and nearest neighbours learn from; `train`, unless `data.evaluation_source` names another set.
    """

    train: sources.Source
    test: sources.Source
    bank: sources.Source


def open_data(config: ConfigDict, own: parts.Own) -> Data:
    """Open the images that a configuration names, or that are given from Python.

    Raises:
      UsageError: a source cannot be read, or is not what the run needs.
    """
    scored = _open_scored(config, own)
    given = f"config.data.source={config.data.source!r}"
    with _explain(given):
        for source in (own.train, own.test):
            if source is not None:
                sources.check(source)
        train: sources.Source
        test: sources.Source | None
        if own.train is not None:
            train, test = own.train, own.train if own.test is None else own.test
        elif scored is not None or own.test is not None:
            train, test = sources.load(config.data.source, split="train", **_options(config)), own.test
        else:
            train, test = sources.load_splits(config.data.source, **_options(config))
    if scored is not None:
        _check_channels(config, train, scored.train)
        return Data(train, scored.test, scored.train)
    assert test is not None
    _check_alike(train, test)
    return Data(train, test, train)


def fingerprint(data: Data) -> dict[str, Any]:
    """What identifies the images of a run: {"train", "test" and, where it is another set, "evaluation_train"}."""
    found = {"train": sources.fingerprint(data.train), "test": sources.fingerprint(data.test)}
    if data.bank is not data.train:
        found["evaluation_train"] = sources.fingerprint(data.bank)
    return found


def _open_scored(config: ConfigDict, own: parts.Own) -> sources.Splits | None:
    """The labelled images of the evaluation, if they are others than those of the run."""
    if config.data.evaluation_source is None:
        return None
    given = f"config.data.evaluation_source={config.data.evaluation_source!r}"
    if own.test is not None:
        raise UsageError(f"{given}: expected none beside own.test. Give one of them.")
    with _explain(given):
        scored = sources.load_splits(config.data.evaluation_source, **_options(config))
    if any(sources.labels_of(source) is None for source in scored):
        raise UsageError(f"{given}: expected a data set with labels in both splits, got one without.")
    return scored


def _options(config: ConfigDict) -> dict[str, Any]:
    data = config.data
    return {
        "image_size": data.image_size,
        "stored_size": data.stored_size,
        "data_dir": data.directory,
        "cache_bytes": data.cache_gib * 2**30,
    }


@contextlib.contextmanager
def _explain(given: str) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise UsageError(f"{given}: {error}") from None


def _check_channels(config: ConfigDict, train: sources.Source, bank: sources.Source) -> None:
    if bank.image_shape[-1] != train.image_shape[-1]:
        raise UsageError(
            f"config.data.evaluation_source={config.data.evaluation_source!r}: expected images of "
            f"{train.image_shape[-1]} channels, as the training images, got {bank.image_shape[-1]}."
        )


def _check_alike(train: sources.Source, test: sources.Source) -> None:
    """Test images have the shape and the classes of the training images."""
    shapes = tuple(train.image_shape), tuple(test.image_shape)
    if shapes[0] != shapes[1]:
        raise UsageError(f"test images: expected the shape {shapes[0]} of the training images, got {shapes[1]}.")
    labels, classes = sources.labels_of(test), sources.num_classes_of(train)
    if labels is not None and classes is not None and labels.max() >= classes:
        raise UsageError(f"test labels: expected the {classes} classes of the training images, got {labels.max()}.")


def check_labels(config: ConfigDict, own: parts.Own, data: Data) -> None:
    """Check, before training starts, that the images have the labels that the loss and the evaluation need.

    Args:
      config: of the run.
      own: its parts, resolved.
      data: its images.

    Raises:
      UsageError: they have not.
    """
    source = f"config.data.source={config.data.source!r}"
    if own.loss is not None and contract.needs_of(own.loss).labels and sources.labels_of(data.train) is None:
        raise UsageError(
            f"config.loss.name={config.loss.name!r}: expected a source with labels, {source} has none. Give another "
            "source, or a loss that needs no labels."
        )
    labels = sources.labels_of(data.bank)
    if labels is not None:
        if data.bank is not data.train:
            source = f"config.data.evaluation_source={config.data.evaluation_source!r}"
        check_class_sizes(labels, source, labels_per_class=config.evaluation.labels_per_class)


def check_class_sizes(labels: np.ndarray, source: str, *, labels_per_class: int) -> None:
    """Check that every class has the images that the probe on a few labels takes of it.

    Args:
      labels: int [n], of the training images.
      source: what they are called in the message.
      labels_per_class: how many the probe takes.

    Raises:
      UsageError: a class has fewer.
    """
    classes, counts = np.unique(labels, return_counts=True)
    rarest = int(np.argmin(counts))
    if counts[rarest] < labels_per_class:
        raise UsageError(
            f"config.evaluation.labels_per_class={labels_per_class}: expected at most the {counts[rarest]} training "
            f"images of class {classes[rarest]} of {source}."
        )
