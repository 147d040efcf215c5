"""Any NNX module as data and pure functions, the same on any number of devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax import spmd
from contrastive_jax.errors import UsageError
from contrastive_jax.models._batch import normalize_over
from contrastive_jax.models._calling import call, describe, set_mode
from contrastive_jax.models._normalization import BatchNorm

_IMPLEMENTATIONS = {2: "threefry2x32", 4: "rbg"}  # of random keys, by the words of one


def functional(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """A model as data: what it is, its parameters, and everything else that it holds.

    Args:
      model: any `nnx.Module` from images [b, h, w, c] to [b, d].

    Returns:
      `(graphdef, params, state)`: a hashable description; the variables of type `nnx.Param`; and all other variables:
      running statistics, streams of random numbers (their keys as uint32, so that every leaf is a plain array), own
      ones.

    Raises:
      UsageError: `model` is no `nnx.Module`, or keeps random keys anywhere but in `nnx.Rngs`.

    Example:
      >>> model = models.create("resnet18", image_shape=(8, 8, 1), encoder_kwargs={"width": 8})
      >>> graphdef, params, state = models.functional(model)
      >>> projections, state = models.apply(graphdef, params, state, jnp.ones((2, 8, 8, 1)), train=True)
    """
    if not isinstance(model, nnx.Module):
        raise UsageError(f"expected a model that is an nnx.Module, got {describe(model)}.")
    graphdef, *states = nnx.split(model, nnx.Param, nnx.RngKey, ...)
    params, keys, rest = states
    keys = jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, keys)
    rest = jax.tree.map(_plain, rest)
    return graphdef, params, nnx.merge_state(keys, rest)


def apply(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    state: nnx.State,
    images: jax.Array,
    *,
    train: bool,
    axis_name: spmd.AxisName = None,
    keys: jax.Array | None = None,
) -> tuple[jax.Array, nnx.State]:
    """Projections of images, and the state after them; a pure function, differentiable in `params`.

    In training, batch normalisation (`nnx.BatchNorm`, and Linen's in `nnx.bridge.ToNNX`) is over the whole batch of all
    devices, whatever axis the module was built with. A model that draws random numbers (Dropout) sees the images one by
    one under a `vmap`, each with its own key, so that no image's numbers depend on the others in its batch or on the
    number of devices; normalisation still sees all of them.

    A layer with other state that follows the batch has to average over all devices, by `models.batch_mean`.

    Args:
      graphdef, params, state: the model, from `functional`.
      images: [b, h, w, c], floating point; this device's share of the batch.
      train: whether the model trains. It is passed as `train` (or `deterministic`, `use_running_average`) where the
        module's `__call__` takes it, and sets NNX's attributes `deterministic` and `use_running_average` everywhere.
      axis_name: the mapped axis (`shard_map`, `pmap`, `vmap`) over which the batch is divided; None outside one.
      keys: [b] typed random keys, one for each image; needed in training by a model that holds `nnx.Rngs`, and
        otherwise unused.

    Returns:
      `(projections, state)`: [b, d] float32, not normalised, and a state of the structure of the given one. It is the
      same on every device, and `shard_map` knows it (`out_specs=P()` passes its check). Streams of random numbers stay
      as they are, and so does all state where `train=False`.

    Raises:
      UsageError: keys are missing or do not fit; the model's output is not [b, d]; or its state follows this device's
        share of the batch, or changes its structure.
    """
    if not train:
        return _evaluate(graphdef, params, state, images, call), state
    streams, rest = nnx.split_state(state, nnx.RngState, ...)
    has_keys = bool(jax.tree.leaves(nnx.filter_state(streams, nnx.RngKey)))
    by_row = has_keys or _has_own_state(graphdef, params, state)

    def run(images: jax.Array, key: jax.Array | None) -> tuple[jax.Array, nnx.State]:
        own = streams if key is None else _fold(streams, key)
        # Without a copy the model would hold, and move, the variables of the caller.
        model = nnx.merge(graphdef, params, own, rest, copy=True)
        set_mode(model, train=True)
        with normalize_over(model, axis_name, by_row=by_row):
            projections = _checked(call(model, images, train=True), images)
        new = nnx.state(model, nnx.All(nnx.Not(nnx.Param), nnx.Not(nnx.RngState)))
        return projections, _restructured(new, rest)

    if has_keys:
        rows, used = images[:, None], _checked_keys(keys, len(images))
    elif by_row:
        rows, used = images[None], None
    else:
        projections, rest = run(images, None)
        return projections, nnx.merge_state(streams, rest)
    try:
        projections, rest = jax.vmap(run, out_axes=(0, None))(rows, used)
    except ValueError as error:
        if "out_axes" not in str(error):
            raise
        raise UsageError(_differs(rest)) from error
    return projections.reshape(len(images), -1), nnx.merge_state(streams, rest)


def features(graphdef: nnx.GraphDef, params: nnx.State, state: nnx.State, images: jax.Array) -> jax.Array:
    """Features [b, f] float32 of images [b, h, w, c], as the model evaluates; needs no mapped axis and no keys.

    They are those of the model's method `features(images)` where it has one, as `ContrastiveModel` does; its output
    elsewhere.
    """

    def find(model: nnx.Module, images: jax.Array, *, train: bool) -> Any:
        own = None if isinstance(model, nnx.bridge.ToNNX) else getattr(model, "features", None)
        return own(images) if callable(own) else call(model, images, train=train)

    return _evaluate(graphdef, params, state, images, find)


def _evaluate(
    graphdef: nnx.GraphDef, params: nnx.State, state: nnx.State, images: jax.Array, fn: Callable[..., Any]
) -> jax.Array:
    model = merge(graphdef, params, state)
    set_mode(model, train=False)
    return _checked(fn(model, images, train=False), images)


def merge(graphdef: nnx.GraphDef, params: nnx.State, state: nnx.State) -> nnx.Module:
    """The model that `functional` took apart, with these parameters and this state; it shares no variable with them.

    Example:
      >>> model = models.create("resnet10", image_shape=(8, 8, 1), encoder_kwargs={"width": 4})
      >>> type(models.merge(*models.functional(model))).__name__
      'ContrastiveModel'
    """
    keys, rest = nnx.split_state(state, nnx.RngKey, ...)
    return nnx.merge(graphdef, params, jax.tree.map(_wrapped, keys), rest, copy=True)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _plain(x: Any) -> jax.Array:
    """A leaf of the state as an array of a firm dtype, so that a step of it compiles once."""
    if _is_key(x):
        raise UsageError(
            "expected random keys of a model in nnx.Rngs (or nnx.RngStream), got one in another variable, which would "
            "draw the same numbers on every device. Keep `rngs` in the module and call `self.rngs.dropout()`."
        )
    return jnp.asarray(x, jnp.asarray(x).dtype)


def _wrapped(data: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(data, impl=_IMPLEMENTATIONS[data.shape[-1]])


def _fold(streams: nnx.State, key: jax.Array) -> nnx.State:
    """The streams of one row: each its own, because its old key is folded into that of the row."""

    def fold(words: jax.Array) -> jax.Array:
        folded = key
        for word in words:
            folded = jax.random.fold_in(folded, word)
        return folded

    def of_stream(data: jax.Array) -> jax.Array:
        return jax.vmap(fold)(data.reshape(-1, data.shape[-1])).reshape(data.shape[:-1])

    old, counts = nnx.split_state(streams, nnx.RngKey, ...)
    return nnx.merge_state(jax.tree.map(of_stream, old), counts)


def _has_own_state(graphdef: nnx.GraphDef, params: nnx.State, state: nnx.State) -> bool:
    """Whether there is state besides streams of random numbers and the statistics of known normalisations."""
    model = nnx.merge(graphdef, params, state)
    known = [m for _, m in nnx.iter_modules(model) if type(m) in (nnx.BatchNorm, BatchNorm)]
    owned = jax.tree.leaves(nnx.state(model, nnx.All(nnx.Not(nnx.Param), nnx.Not(nnx.RngState))))
    return len(owned) > 2 * len(known)


def _checked(out: Any, images: jax.Array) -> jax.Array:
    shape, rows = getattr(out, "shape", None), images.shape[0]
    if shape is None or len(shape) != 2 or shape[0] != rows or not jnp.issubdtype(out.dtype, jnp.floating):
        got = f"{type(out).__name__}" if shape is None else f"{out.dtype}{list(shape)}"
        raise UsageError(
            f"expected a model that gives floats [{rows}, d] for images {list(images.shape)}, got {got}. Pool over "
            "height and width, or flatten."
        )
    return out.astype(jnp.float32)


def _checked_keys(keys: jax.Array | None, rows: int) -> jax.Array:
    if keys is None:
        raise UsageError(
            "expected keys, because the model draws random numbers in training (it holds nnx.Rngs), got None. Pass "
            "`keys`, [b] typed random keys, one for each image."
        )
    if not _is_key(keys) or keys.shape != (rows,):
        raise UsageError(
            f"expected keys to be [{rows}] typed random keys, one for each image, got {keys.dtype}{list(keys.shape)}."
        )
    implementation = str(jax.random.key_impl(keys))
    if implementation != "threefry2x32":
        raise UsageError(
            f"expected keys of threefry2x32, got {implementation}, whose numbers for one image depend on the other "
            "images of its batch. Make them by `jax.random.key(seed, impl='threefry2x32')`."
        )
    return keys


def _restructured(new: nnx.State, old: nnx.State) -> nnx.State:
    """The new state, refused unless it has the structure, shapes and dtypes of the old one."""

    def describe(state: nnx.State) -> dict[str, str]:
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return {jax.tree_util.keystr(path): f"{jnp.asarray(x).dtype}{list(jnp.shape(x))}" for path, x in leaves}

    before, after = describe(old), describe(new)
    if before != after:
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        raise UsageError(
            "expected a model whose state keeps its structure in training, got another one: "
            + "; ".join(f"{name} was {before.get(name)}, is {after.get(name)}" for name in changed)
            + ". Give every variable its final shape and dtype where the model is built."
        )
    leaves = [jnp.asarray(x, jnp.asarray(x).dtype) for x in jax.tree.leaves(new)]
    return jax.tree.unflatten(jax.tree.structure(old), leaves)


def _differs(state: nnx.State) -> str:
    names = [jax.tree_util.keystr(path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return (
        f"expected the state that training changes ({', '.join(names)}) to be the same on every device, got some that "
        "follows each device's own share of the batch. Average what it follows over the whole batch by "
        "`models.batch_mean`."
    )
