"""The metrics that a step logs besides its loss: built-in or your own functions of (state, embeddings, batch)."""

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
_TAKEN = ("step", "epoch", "images_per_second", "waited_for_data")
_TAKEN_PREFIXES = ("positive_", "cross_view_", "within_view_", "theory_", "evaluation_")


def distribution(contrast_size: int | None = None, num_bins: int = 100) -> Metric:
    """Make the metric that logs the similarities within every contrast set, see `regime.distribution`.

    Args:
      contrast_size: instances compared with each other; None for the whole step.
      num_bins: equal bins over [-1, 1].
    """

    def measure_distribution(
        state: TrainState, embeddings: jax.Array, batch: Mapping[str, jax.Array], *, axis_name: spmd.AxisName
    ) -> metrics.SimilarityDistribution:
        size = contrast_size or embeddings.shape[1] * spmd.axis_size(axis_name)
        u, v, ids = embeddings[0], embeddings[1], batch["id"]
        return regime.distribution(u, v, ids, contrast_size=size, num_bins=num_bins, axis_name=axis_name)

    return measure_distribution


def negatives(contrast_size: int | None = None) -> Metric:
    """Make the metric that logs the mean and variance of the negatives alone, see `regime.negative_moments`.

    Args:
      contrast_size: instances compared with each other; None for the whole step.
    """

    def measure_negatives(
        state: TrainState, embeddings: jax.Array, batch: Mapping[str, jax.Array], *, axis_name: spmd.AxisName
    ) -> metrics.NegativeMoments:
        size = contrast_size or embeddings.shape[1] * spmd.axis_size(axis_name)
        u, v = embeddings[0], embeddings[1]
        return regime.negative_moments(u, v, batch["id"], contrast_size=size, axis_name=axis_name)

    return measure_negatives


def measure(
    functions: Mapping[str, Metric],
    state: TrainState,
    embeddings: tuple[jax.Array, ...],
    batch: Mapping[str, jax.Array],
    *,
    positions: np.ndarray,
    axis_name: spmd.AxisName,
) -> dict[str, Any]:
    """Call every metric and collect the results by name.

    A metric is called as `f(state, embeddings, batch)` on every device, with

    - the state at the start of the step;
    - the embeddings of the whole batch as the encoder returned them, float [V, B, d] for V views;
    - the whole batch in its order: `image` uint8 [B, h, w, c], `id` int32 [B] and, if the loss needs labels, `label`
      int32 [B].

    It returns a scalar, an array, a `metrics.SimilarityDistribution` or `metrics.NegativeMoments`, or a dict of these
    by name. A metric with an argument `axis_name` receives the mapped axis and this device's share instead of the whole
    batch, and must return the same values on every device.

    Args:
      functions: the metrics by name. The items of a returned dict are logged under their own names.
      state: the state at the start of the step.
      embeddings: V arrays [b, d] of this device.
      batch: this device's share.
      positions: [B], the position in the batch of every instance of all devices, from `gradient.layout`.
      axis_name: the mapped axis; None outside one.

    Raises:
      ValueError: if two metrics return values of the same name.
    """
    share = jnp.stack(embeddings)
    found: dict[str, Any] = {}
    for name, function in functions.items():
        with jax.named_scope(name):
            if "axis_name" in inspect.signature(function).parameters:
                result = function(state, share, batch, axis_name=axis_name)
            else:
                whole = gather_batch({**batch, "embeddings": jnp.stack(embeddings, 1)}, positions, axis_name)
                result = function(state, jnp.moveaxis(whole.pop("embeddings"), 1, 0), whole)
        named = result if isinstance(result, Mapping) else {name: result}
        for key, value in named.items():
            _check_logged(key, value)
        if twice := sorted(found.keys() & named.keys()):
            raise ValueError(f"logged numbers: expected different names, got {twice[0]!r} twice; rename one of them.")
        found |= named
    return found


def _check_logged(name: Any, value: Any) -> None:
    """Refuse what cannot be logged by its name."""
    if not isinstance(name, str) or name in _TAKEN or name.startswith(_TAKEN_PREFIXES):
        taken = ", ".join([*_TAKEN, *(f"{prefix}..." for prefix in _TAKEN_PREFIXES)])
        raise ValueError(f"logged numbers: expected a name of its own, got {name!r}; the log itself uses {taken}.")
    if isinstance(value, metrics.SimilarityDistribution | metrics.NegativeMoments):
        return
    dtype = getattr(value, "dtype", None if value is None else np.result_type(type(value)))
    if isinstance(value, Mapping | list | tuple) or dtype is None or not _is_number(dtype):
        raise ValueError(
            f"logged numbers: expected a scalar or an array of real numbers as {name!r}, got "
            f"{type(value).__name__ if dtype is None or isinstance(value, Mapping | list | tuple) else dtype}; "
            "stack several numbers, and return a flat dict for several names."
        )


def _is_number(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_


def gather_batch(
    batch: Mapping[str, jax.Array], positions: np.ndarray, axis_name: spmd.AxisName
) -> dict[str, jax.Array]:
    """Gather the whole batch in its order from the devices' shares; fields that no metric uses cost nothing."""
    return {name: estimator.gather_in_order(x, positions, axis_name) for name, x in batch.items()}


def name_metrics(functions: Sequence[Metric], *, contrast_size: int | None, num_bins: int) -> dict[str, Metric]:
    """The metrics of a step by name: the similarity distribution, or moments of the negatives, and your own functions.

    Args:
      functions: your own metrics, named by their `__name__`.
      contrast_size: instances compared with each other; None for the whole step.
      num_bins: bins of the similarity distribution; 0 leaves it out, and logs its mean and variance of the cross-view
        negatives alone, as `"cross_view"`.

    Raises:
      ValueError: if two functions have the same name.
    """
    named = {"cross_view": negatives(contrast_size)}
    if num_bins:
        named = {"distribution": distribution(contrast_size, num_bins)}
    for function in functions:
        name = getattr(function, "__name__", type(function).__name__)
        if name in named:
            raise ValueError(f"logged numbers: expected functions of different names, got {name!r} twice; rename one.")
        named[name] = function
    return named
