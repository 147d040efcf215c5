"""Optimisers and learning-rate schedules, all of them Optax's."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

OPTIMIZERS = ("sgd", "lars", "adamw")


def learning_rate_schedule(
    learning_rate: float, *, batch_size: int, steps_per_epoch: int, warmup_epochs: float, epochs: int, decay: str
) -> Callable[[jax.Array], jax.Array]:
    """Linear warm-up to `learning_rate` x batch_size / 256, then a cosine to zero, or constant.

    Args:
      learning_rate: for a batch of 256.
      batch_size: of all devices.
      steps_per_epoch: batches in an epoch.
      warmup_epochs: epochs of linear warm-up; may be a fraction.
      epochs: epochs in all.
      decay: `"cosine"` or `"constant"`.

    Returns:
      step -> learning rate.
    """
    peak = learning_rate * batch_size / 256
    warmup, total = round(warmup_epochs * steps_per_epoch), epochs * steps_per_epoch
    after = optax.constant_schedule(peak)
    if decay == "cosine":
        after = optax.cosine_decay_schedule(peak, max(1, total - warmup))
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(1, warmup)), after], [warmup])


def create(
    name: str, schedule: Callable[[jax.Array], jax.Array], *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """SGD with momentum, LARS, or AdamW.

    Weight decay is added to SGD's gradient, as in PyTorch and so in the papers' code. LARS leaves vectors (biases and
    normalisation) without decay and without adaptation, as SimCLR does, and AdamW leaves them without decay. Scalars,
    such as a loss's learnt scale, have neither under any of the three.
    """
    match name:
        case "sgd":
            decay = optax.add_decayed_weights(weight_decay, mask=_is_array)
            return optax.chain(decay, optax.sgd(schedule, momentum=momentum))
        case "lars":
            return optax.lars(
                schedule,
                weight_decay=weight_decay,
                weight_decay_mask=_is_matrix,
                trust_ratio_mask=_is_matrix,
                momentum=momentum,
            )
        case "adamw":
            return optax.adamw(schedule, weight_decay=weight_decay, mask=_is_matrix)
    raise ValueError(f"optimizer {name!r} is unknown; give one of {', '.join(map(repr, OPTIMIZERS))}.")


def _is_array(params):
    return jax.tree.map(lambda x: jnp.ndim(x) > 0, params)


def _is_matrix(params):
    return jax.tree.map(lambda x: jnp.ndim(x) > 1, params)
