"""Optimisers and learning-rate schedules, built from Optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[jax.Array], jax.Array]


def learning_rate_schedule(
    learning_rate: float, *, update_size: int, steps_per_epoch: int, warmup_epochs: float, epochs: int, decay: str
) -> Schedule:
    """Linear warm-up to `learning_rate` x update_size / 256, then a cosine decay to zero, or a constant.

    Args:
      learning_rate: the peak learning rate for a step of 256 instances.
      update_size: instances of a step, over all devices.
      steps_per_epoch: steps in an epoch.
      warmup_epochs: epochs of linear warm-up; may be a fraction.
      epochs: the total number of epochs.
      decay: `"cosine"` or `"constant"`.

    Returns:
      step -> learning rate.
    """
    peak = learning_rate * update_size / 256
    warmup, total = round(warmup_epochs * steps_per_epoch), epochs * steps_per_epoch
    after = optax.constant_schedule(peak)
    if decay == "cosine":
        after = optax.cosine_decay_schedule(peak, max(1, total - warmup))
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(1, warmup)), after], [warmup])


def sgd(schedule: Schedule, *, momentum: float = 0.9, weight_decay: float = 1e-4) -> optax.GradientTransformation:
    """SGD with momentum. Weight decay is added to the gradient, as in PyTorch and therefore in the papers' code.

    No optimiser in this module decays scalars, such as the learnt scale of a loss.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay, mask=_is_array), optax.sgd(schedule, momentum=momentum))


def lars(schedule: Schedule, *, momentum: float = 0.9, weight_decay: float = 1e-4) -> optax.GradientTransformation:
    """LARS. Vectors (biases and normalisation) are neither decayed nor adapted, as in SimCLR."""
    return optax.lars(
        schedule,
        weight_decay=weight_decay,
        weight_decay_mask=_is_matrix,
        trust_ratio_mask=_is_matrix,
        momentum=momentum,
    )


def adamw(schedule: Schedule, *, weight_decay: float = 1e-4) -> optax.GradientTransformation:
    """AdamW. Vectors are not decayed."""
    return optax.adamw(schedule, weight_decay=weight_decay, mask=_is_matrix)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {"sgd": sgd, "lars": lars, "adamw": adamw}


def _is_array(params: Any) -> Any:
    return jax.tree.map(lambda x: jnp.ndim(x) > 0, params)


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda x: jnp.ndim(x) > 1, params)
