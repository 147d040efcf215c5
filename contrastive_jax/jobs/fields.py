"""The table of a configuration's fields: their defaults, types and limits."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from contrastive_jax import pairwise, spmd
from contrastive_jax.data import batches, views
from contrastive_jax.jobs import parts
from contrastive_jax.training import optimizer


class Field(NamedTuple):
    """One field of the configuration."""

    default: Any
    kind: type  # the type of its values
    expected: str  # what its values must be, for messages
    holds: Callable[[Any], bool] = lambda _: True  # whether a value of that type is within its limits
    optional: bool = False  # whether it may be None


def _one_of(default: str, names: Any) -> Field:
    return Field(default, str, "one of " + ", ".join(map(repr, names)), lambda x: x in names)


def _part(default: str, names: Any) -> Field:
    known = ", ".join(map(repr, names))
    return Field(default, str, f"one of {known} or package.module:function", lambda x: x in names or ":" in x)


def _at_least(default: Any, least: float, kind: type = int, optional: bool = False) -> Field:
    noun = "a whole number" if kind is int else "a number"
    return Field(default, kind, f"{noun} >= {least}", lambda x: x >= least, optional)


def _momentum(default: float | None, optional: bool = False) -> Field:
    return Field(default, float, "a number in [0, 1)", lambda x: 0 <= x < 1, optional)


def _above(default: float | None, limit: float, optional: bool = False) -> Field:
    return Field(default, float, f"a number > {limit}", lambda x: x > limit, optional)


def _is_numbers(x: tuple[Any, ...]) -> bool:
    return bool(x) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in x)


_SOURCES = "digits, tfds:NAME, folder:PATH, npz:PATH or package.module:function"
_MAX_SEED = 2**32 - 1  # of the words of a key
FIELDS: dict[str, Field] = {
    "seed": Field(0, int, f"a whole number from 0 to {_MAX_SEED}", lambda x: 0 <= x <= _MAX_SEED),
    "epochs": _at_least(100, 1),
    "batch_size": _at_least(256, 2),
    "contrast_size": Field(None, int, "a whole number >= 2, or full", lambda x: x == 0 or x >= 2, optional=True),
    "num_views": _at_least(2, 2),
    "partition": _one_of("reshuffled", batches.PARTITIONS),
    "parallelism": _one_of("shard_map", spmd.PARALLELISMS),
    "on_nonfinite": _one_of("stop", ("stop", "skip")),
    "nonfinite_limit": _at_least(10, 1),
    "data.source": Field("digits", str, _SOURCES, bool),
    "data.evaluation_source": Field(None, str, f"a labelled data set, {_SOURCES}", bool, optional=True),
    "data.directory": Field(None, str, "the folder of TensorFlow Datasets", bool, optional=True),
    "data.image_size": _at_least(32, 4),
    "data.stored_size": _at_least(None, 4, optional=True),
    "data.cache_gib": _at_least(2.0, 0, float),
    "data.mean": Field((0.5,), tuple, "numbers, one or one for each channel", _is_numbers),
    "data.std": Field(
        (0.5,), tuple, "positive numbers, one or one for each channel", lambda x: _is_numbers(x) and min(x) > 0
    ),
    "model.name": _part("resnet18", tuple(parts.ENCODER.known)),
    "model.weights": Field(None, str, "a .safetensors file with torchvision's names", bool, optional=True),
    "model.weights_sha256": Field(None, str, "the SHA-256 of that file", bool, optional=True),
    "model.head": _part("projection", tuple(parts.HEAD.known)),
    "loss.name": _part("simclr", tuple(parts.LOSS.known)),
    "loss.learnable": Field(False, bool, "true or false"),
    "loss.precision": _one_of("highest", pairwise.PRECISIONS),
    "estimator.queue_size": _at_least(4096, 1),
    "estimator.encoder_momentum": _momentum(None, optional=True),
    "vrns_weight": _at_least(0.0, 0, float),
    "optimizer.name": _part("sgd", optimizer.OPTIMIZERS),
    "optimizer.learning_rate": _above(0.3, 0),
    "optimizer.warmup_epochs": _at_least(10.0, 0, float),
    "optimizer.decay": _one_of("cosine", ("cosine", "constant")),
    "checkpoint.every": _at_least(1000, 1),
    "checkpoint.keep": _at_least(3, 1),
    "log.distribution": Field(True, bool, "true or false"),
    "log.num_bins": _at_least(100, 2),
    "log.pictures": Field(True, bool, "true or false"),
    "log.tensorboard_every": _at_least(1, 1),
    "log.metrics": Field((), tuple, "package.module:function, or several separated by commas"),
    "evaluation.every": _at_least(10, 1, optional=True),
    "evaluation.subset": _at_least(1000, 2),
    "evaluation.raw_pixels": Field(True, bool, "true or false"),
    "evaluation.batch_size": _at_least(256, 1),
    "evaluation.probe_epochs": _at_least(200, 1),
    "evaluation.probe_learning_rate": _above(0.1, 0),
    "evaluation.knn_neighbours": _at_least(200, 1),
    "evaluation.knn_temperature": _above(0.07, 0),
    "evaluation.labels_per_class": _at_least(5, 1),
    "evaluation.draws": _at_least(3, 1),
}


def _view_fields() -> Iterator[tuple[str, Field]]:
    """One field for each argument of `ViewConfig`, except size and normalisation, which are fields of `data`."""
    for name, parameter in inspect.signature(views.ViewConfig).parameters.items():
        if name not in ("size", "mean", "std"):
            yield f"views.{name}", Field(parameter.default, type(parameter.default), "")


FIELDS |= dict(_view_fields())
# Limits on arguments of this package's parts, which those check only when they run.
LIMITED_ARGUMENTS = {
    "temperature": _above(None, 0),
    "momentum": _momentum(None),
    "weight_decay": _at_least(None, 0, float),
    "width": _at_least(None, 1),
}
