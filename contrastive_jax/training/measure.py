"""What is logged of a step besides its loss: functions of (state, embeddings, batch), built in or your own."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import metrics, spmd
from contrastive_jax.training import estimator, regime
from contrastive_jax.training.state import TrainState

Metric = Callable[..., Any]


def distribution(contrast_size: int | None = None, num_bins: int = 100) -> Metric:
    """The metric that logs the similarity distribution of every contrast set: see `regime.distribution`.

    Args:
      contrast_size: instances compared with each other; None for all of a step.
      num_bins: equal bins over [-1, 1].
    """

    def measure_distribution(
        state: TrainState, embeddings: jax.Array, batch: Mapping[str, jax.Array], *, axis_name: spmd.AxisName
    ) -> metrics.SimilarityDistribution:
        size = contrast_size or embeddings.shape[1] * spmd.axis_size(axis_name)
        u, v, ids = embeddings[0], embeddings[1], batch["id"]
        return regime.distribution(u, v, ids, contrast_size=size, num_bins=num_bins, axis_name=axis_name)

    return measure_distribution


def measure(
    functions: Mapping[str, Metric],
    state: TrainState,
    embeddings: tuple[jax.Array, ...],
    batch: Mapping[str, jax.Array],
    *,
    positions: np.ndarray,
    axis_name: spmd.AxisName,
) -> dict[str, Any]:
    """What every function finds, by name; a dict that a function returns is taken apart.

    A function is called as `f(state, embeddings, batch)` with the whole batch, in its order, on every device:
    embeddings float [V, B, d] of its V views, as the encoder gave them, and a batch of `image` uint8 [B, h, w, c], `id`
    int32 [B] and, where the loss needs it, `label` int32 [B]; `state` is the one that the step began with. It returns a
    scalar, an array, or a dict of these by name. One that has an argument `axis_name` is given this device's share
    instead, with the mapped axis, and must find the same on every device.

    Args:
      functions: by the name that is logged; the names in a returned dict are logged as they are.
      state: at the beginning of the step.
      embeddings: V of [b, d], of this device.
      batch: this device's share.
      positions: where in the batch each instance of all devices lies, see `gradient.layout`.
      axis_name: the mapped axis; None outside one.

    Raises:
      ValueError: if two functions find something of one name.
    """
    share = jnp.stack(embeddings)
    found: dict[str, Any] = {}
    for name, function in functions.items():
        if "axis_name" in inspect.signature(function).parameters:
            result = function(state, share, batch, axis_name=axis_name)
        else:
            whole = gather_batch({**batch, "embeddings": jnp.stack(embeddings, 1)}, positions, axis_name)
            result = function(state, jnp.moveaxis(whole.pop("embeddings"), 1, 0), whole)
        named = result if isinstance(result, Mapping) else {name: result}
        if twice := sorted(found.keys() & named.keys()):
            raise ValueError(f"logged numbers: expected different names, got {twice[0]!r} twice; rename one of them.")
        found |= named
    return found


def gather_batch(
    batch: Mapping[str, jax.Array], positions: np.ndarray, axis_name: spmd.AxisName
) -> dict[str, jax.Array]:
    """The whole batch in its order from every device's share of it; what nobody uses of it costs nothing."""
    return {name: estimator.gather_in_order(x, positions, axis_name) for name, x in batch.items()}


def by_name(functions: Sequence[Metric], *, contrast_size: int | None, num_bins: int) -> dict[str, Metric]:
    """The metrics of a step: the distribution of similarities, unless num_bins is 0, and functions of your own.

    Raises:
      ValueError: if two functions have one name.
    """
    named = {"distribution": distribution(contrast_size, num_bins)} if num_bins else {}
    for function in functions:
        name = getattr(function, "__name__", type(function).__name__)
        if name in named:
            raise ValueError(f"logged numbers: expected functions of different names, got {name!r} twice; rename one.")
        named[name] = function
    return named
