"""From a loss's name and its hyperparameters to the function that is trained."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from contrastive_jax import losses, spmd

LOSSES: dict[str, Callable[..., jax.Array]] = {
    "info_nce": losses.info_nce,
    "simclr": losses.simclr,
    "dcl": losses.dcl,
    "dhel": losses.dhel,
    "siglip": losses.siglip,
    "spectral": losses.spectral,
    "kcl": losses.kcl,
    "align_uniform": losses.align_uniform,
}
_CONTRACT = {"ids", "axis_name", "implementation"}


def hyperparameters(name: str) -> dict[str, Any]:
    """A loss's own keyword arguments, with their defaults.

    Example:
      >>> hyperparameters("dhel")
      {'temperature': 0.2, 'form': 'mean'}
    """
    parameters = inspect.signature(LOSSES[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _CONTRACT}


@dataclasses.dataclass(frozen=True)
class Objective:
    """loss + weight * VRNS, pair by pair: a function with the contract of a loss that also tells its parts."""

    name: str
    kwargs: Mapping[str, Any]
    vrns_weight: float
    num_instances: int

    def __call__(
        self, u: jax.Array, v: jax.Array, *, ids: jax.Array, axis_name: spmd.AxisName = None
    ) -> dict[str, jax.Array]:
        """Values [m] of the whole, `"loss"`, and of its parts, by name."""
        contrastive = LOSSES[self.name](u, v, ids=ids, axis_name=axis_name, **self.kwargs)
        parts = {"loss": contrastive, self.name: contrastive}
        if self.vrns_weight:
            parts["vrns"] = losses.vrns(u, v, num_instances=self.num_instances, ids=ids, axis_name=axis_name)
            parts["loss"] = contrastive + self.vrns_weight * parts["vrns"]
        return parts
