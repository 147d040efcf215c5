"""Estimates of a larger batch: a queue of past embeddings as negatives (MoCo), a moving average (SogCLR)."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from contrastive_jax import explicit_axes, pairwise, spmd
from contrastive_jax.losses import _pairs
from contrastive_jax.losses.contract import Kept, Memory, Setting, State, declare
from contrastive_jax.pairwise import shared


def _init_queue(setting: Setting) -> State:
    """Random unit vectors [k, d] that belong to no instance, the oldest first."""
    rng = np.random.default_rng((setting.seed, 0, 2))  # a stream of its own, beside those of the batches' order
    vectors = rng.normal(size=(setting.queue_size, setting.dimensions))
    return {
        "queue": pairwise.normalize(jnp.asarray(vectors, jnp.float32)),
        "queue_ids": jnp.full(setting.queue_size, -1, jnp.int32),
        "position": jnp.zeros([], jnp.int32),  # where the next key goes
    }


def _update_queue(state: State, kept: Kept) -> State:
    """The batch's keys over the oldest of the queue."""
    size = len(state["queue"])
    slots = (state["position"] + jnp.arange(len(kept.ids))) % size
    return {
        "queue": state["queue"].at[slots].set(pairwise.normalize(kept.keys)),
        "queue_ids": state["queue_ids"].at[slots].set(kept.ids),
        "position": (state["position"] + len(kept.ids)) % size,
    }


_QUEUE = Memory(
    init=_init_queue,
    update=_update_queue,
    shared=lambda state: {name: state[name] for name in ("queue", "queue_ids")},
    arguments=("queue", "queue_ids"),
)
_AVERAGE_BY_INSTANCE = Memory(
    init=lambda setting: {"log_average": jnp.full(setting.num_instances, -jnp.inf, jnp.float32)},
    update=lambda state, kept: {"log_average": state["log_average"].at[kept.ids].set(kept.returned["log_average"])},
    of_instances=lambda state, ids: {"log_average": state["log_average"][ids]},
    arguments=("log_average",),
    returns=("log_average",),
)


@declare(keys=True, memory=_QUEUE)
@explicit_axes.accept(out_axis=0)
def moco(
    u: jax.Array,
    v: jax.Array,
    queue: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    ids: ArrayLike | None = None,
    queue_ids: ArrayLike | None = None,
    keys: tuple[jax.Array, jax.Array] | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> jax.Array:
    r"""Momentum contrast: InfoNCE with a queue of past embeddings as additional negatives.

    .. math::
        \ell_i = \tfrac12 \log\Bigl(1 + \sum_{j \ne i} e^{(u_i^\top v_j - u_i^\top v_i)/t}
               + \sum_k e^{(u_i^\top q_k - u_i^\top v_i)/t}\Bigr) + \tfrac12 (u \leftrightarrow v)

    With `keys` from a momentum encoder, each anchor is compared with the keys of the other view instead of its
    embeddings: v_i and v_j above are keys of v, and in the second half u_i and u_j are keys of u.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      queue: [k, d] past embeddings, k >= 0, the same on every device; normalised inside. It carries no gradient.
      temperature: t > 0, scalar; may be traced.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      queue_ids: [k] int instance ids of the queue, which go with `ids`: an instance's own past embeddings are not its
        negatives. Default: all of the queue are negatives.
      keys: (keys of u [m, d], keys of v [m, d]), likewise normalised inside and without a gradient. Default: u and v
        themselves, with theirs.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      [m] float32 (float64 for float64 input), one value per pair, as `info_nce`, which it equals for an empty queue
      and no keys.

    Raises:
      ValueError: as `info_nce`, for a queue or keys of another shape, or queue_ids without ids.

    Example:
      >>> u, queue = jax.random.normal(jax.random.key(0), (8, 16)), jax.random.normal(jax.random.key(1), (32, 16))
      >>> loss = losses.moco(u, u, queue, temperature=0.2).mean()

    References:
      He et al., 2020, https://arxiv.org/abs/1911.05722; t = 0.2 is that of Chen et al., 2020,
      https://arxiv.org/abs/2003.04297. They contrast in one direction, with the queue alone. Here the rest of the batch
      counts too, in both directions, so that the queue is the only difference from `info_nce`.
    """
    pairs = _pairs.prepare("moco", u, v, ids, axis_name)
    candidates = pairs if keys is None else _prepare_keys(pairs, keys, ids, axis_name)
    queue = _prepare_queue(pairs, queue)
    if queue_ids is not None and ids is None:
        raise ValueError("losses.moco: expected ids with queue_ids, got None.")
    scale = _pairs.inverse_temperature("moco", temperature, pairs.u.dtype)
    options: dict[str, Any] = {"anchor_ids": pairs.ids, "candidate_ids": pairs.ids, "axis_name": axis_name}
    past: dict[str, Any] = {}
    if queue_ids is not None:
        queue_ids = shared.check_ids("losses.moco", "queue_ids", queue_ids, queue.shape[:1])
        past |= {"anchor_ids": pairs.ids, "candidate_ids": queue_ids}
    # Every device has the whole queue: it need not travel.
    past |= {"implementation": "blockwise" if implementation == "ring" else implementation, "precision": precision}

    options |= {"scale": scale, "implementation": implementation, "precision": precision}
    if keys is None:
        of_u, of_v = pairwise.logsumexp_both_ways(pairs.u, pairs.v, **options)
    else:
        of_u, of_v = (pairwise.logsumexp(*x, **options) for x in ((pairs.u, candidates.v), (pairs.v, candidates.u)))

    def one_sided(negatives: jax.Array, anchors: jax.Array, others: jax.Array) -> jax.Array:
        if len(queue):
            in_queue = pairwise.logsumexp(anchors, queue, scale=scale, **past)
            negatives = _pairs.logsumexp(jnp.stack([negatives, in_queue]))
        return jax.nn.softplus(negatives - pairwise.of_pairs(anchors, others) * scale)

    return (one_sided(of_u, pairs.u, candidates.v) + one_sided(of_v, pairs.v, candidates.u)) / 2


@declare(memory=_AVERAGE_BY_INSTANCE)
@explicit_axes.accept(out_axis=0)
def sogclr(
    u: jax.Array,
    v: jax.Array,
    log_average: jax.Array,
    *,
    temperature: float | jax.Array = 0.2,
    update_weight: float | jax.Array = 0.9,
    ids: ArrayLike | None = None,
    axis_name: spmd.AxisName = None,
    implementation: str | None = None,
    precision: pairwise.Precision = "highest",
) -> tuple[jax.Array, jax.Array]:
    r"""SogCLR: a moving average, over the batches, of each instance's mean over its negatives.

    .. math::
        g_i &= \frac{1}{4(m-1)} \sum_{j \ne i} \bigl(e^{u_i^\top v_j/t} + e^{u_i^\top u_j/t}
               + e^{v_i^\top u_j/t} + e^{v_i^\top v_j/t}\bigr) \\
        a_i &\leftarrow (1 - \gamma) a_i + \gamma g_i \qquad \text{(at first } a_i = g_i \text{)} \\
        \ell_i &= -\frac{u_i^\top v_i}{t} + \log a_i, \qquad
        \nabla \ell_i := -\frac{\nabla u_i^\top v_i}{t} + \frac{\nabla g_i}{a_i}

    The gradient is not that of the value: log a_i estimates the logarithm of the mean over all negatives of the
    training set, and :math:`\nabla g_i / a_i` the gradient of that, while differentiating log a_i would give gamma
    times that. Only for gamma = 1 do both belong to :math:`-u_i^\top v_i / t + \log g_i`.

    Args:
      u: [m, d] embeddings of one view, any float dtype; normalised inside. Under `axis_name`, this device's share.
      v: [m, d] embeddings of the other view; (u_i, v_i) is a positive pair.
      log_average: [m] float, log a_i after the instance's last batch; -inf for an instance that has been in none. It
        carries no gradient.
      temperature: t > 0, scalar; may be traced.
      update_weight: gamma of the paper, the weight of the new mean, in (0, 1], scalar; may be traced.
      ids: [m] int instance ids; pairs with equal ids are never negatives of each other. Default: all differ.
      axis_name: compare against the embeddings of all devices along this mapped axis.
      implementation: how the negatives are reduced, see `pairwise.logsumexp`.
      precision: of the products, see `pairwise.similarities`.

    Returns:
      Two of [m] float32 (float64 for float64 input), one value per pair, as `info_nce`, and the new log a_i, without a
      gradient, to be passed with the instance's next batch. For an anchor without negatives the logarithm counts as
      0, and the average stays.

    Raises:
      ValueError: as `info_nce`, for a log_average of another shape, or an update_weight known to be outside (0, 1].

    Example:
      >>> u, unseen = jax.random.normal(jax.random.key(0), (8, 16)), jnp.full(8, -jnp.inf)
      >>> values, log_average = losses.sogclr(u, u, unseen, temperature=0.2)
      >>> loss = values.mean()

    References:
      Yuan et al., 2022, Algorithm 1, https://arxiv.org/abs/2202.12387; update_weight = 0.9 is the gamma
      of the authors' commands. Their loss is t times this one. Their code keeps a_i itself, which overflows at low
      temperatures, and starts it at 0, so that an instance's first batches count for too little.
    """
    pairs = _pairs.prepare("sogclr", u, v, ids, axis_name)
    scale = _pairs.inverse_temperature("sogclr", temperature, pairs.u.dtype)
    weight = _check_update_weight(update_weight, pairs.u.dtype)
    log_average = _prepare_average(pairs, log_average)
    both = _pairs.logsumexp(jnp.stack(_pairs.both_kinds(pairs, scale, axis_name, implementation, precision)))
    alone = jnp.isneginf(both)
    count = jnp.asarray(4 * _pairs.negatives_per_anchor(pairs, ids, axis_name), both.dtype)
    log_mean = _pairs.finite_or_zero(both) - jnp.log(jnp.where(alone, 1, count))

    fixed = lax.stop_gradient(log_mean)
    moved = jnp.logaddexp(jnp.log1p(-weight) + log_average, jnp.log(weight) + fixed)
    moved = jnp.where(alone | jnp.isneginf(log_average), fixed, moved)
    ratio = jnp.exp(log_mean - moved)  # at most 1 / weight
    values = moved + (ratio - lax.stop_gradient(ratio)) - pairs.positive * scale
    return values, jnp.where(alone, log_average, moved)


def _prepare_keys(
    pairs: _pairs.Pairs, keys: tuple[jax.Array, jax.Array], ids: ArrayLike | None, axis_name: spmd.AxisName
) -> _pairs.Pairs:
    """The keys as pairs of their own, without a gradient."""
    u, v = keys
    prepared = _pairs.prepare("moco", u, v, ids, axis_name)
    if prepared.u.shape != pairs.u.shape:
        raise ValueError(
            f"losses.moco: expected keys of the embeddings' shape {pairs.u.shape}, got {prepared.u.shape}."
        )
    return lax.stop_gradient(prepared)


def _prepare_queue(pairs: _pairs.Pairs, queue: jax.Array) -> jax.Array:
    """The queue, checked, normalised, and without a gradient."""
    queue, d = jnp.asarray(queue), pairs.u.shape[1]
    if queue.ndim != 2 or queue.shape[1] != d or not jnp.issubdtype(queue.dtype, jnp.floating):
        raise ValueError(
            f"losses.moco: expected a queue of shape [k, {d}] and a float dtype, got {queue.dtype} of {queue.shape}."
        )
    return lax.stop_gradient(pairwise.normalize(queue.astype(pairs.u.dtype)))


def _prepare_average(pairs: _pairs.Pairs, log_average: jax.Array) -> jax.Array:
    """The averages' logarithms, checked, in the dtype of the values, and without a gradient."""
    log_average = jnp.asarray(log_average)
    if log_average.shape != pairs.positive.shape or not jnp.issubdtype(log_average.dtype, jnp.floating):
        raise ValueError(
            f"losses.sogclr: expected log_average to be floats of shape {pairs.positive.shape}, "
            f"got {log_average.dtype} of shape {log_average.shape}."
        )
    return lax.stop_gradient(log_average.astype(pairs.positive.dtype))


def _check_update_weight(update_weight: float | jax.Array, dtype: jnp.dtype) -> jax.Array:
    if isinstance(update_weight, numbers.Real) and not 0 < float(update_weight) <= 1:
        raise ValueError(f"losses.sogclr: expected update_weight in (0, 1], got {update_weight}.")
    return lax.stop_gradient(_pairs.scalar("sogclr", "update_weight", update_weight, dtype))
