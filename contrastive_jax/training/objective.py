"""From a loss's name and its hyperparameters to the function that is trained."""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
    "sup_con": losses.sup_con,
    "multi_view_info_nce": losses.multi_view_info_nce,
    "multi_view_dhel": losses.multi_view_dhel,
}
# Those that are bounded below in what is learnt; DCL and DHEL fall without end as their temperature does.
LEARNABLE_LOSSES = ("info_nce", "simclr", "siglip")
MAX_SCALE = 100.0
_CONTRACT = {"ids", "axis_name", "implementation"}


class Instances(NamedTuple):
    """Some instances that are compared with each other, as an objective sees them."""

    views: tuple[Any, ...]  # V of [m, d], the embeddings of one view each
    ids: Any  # [m] int, instance ids
    labels: Any = None  # [m] int, where the loss needs them


def hyperparameters(name: str) -> dict[str, Any]:
    """A loss's own keyword arguments, with their defaults.

    Example:
      >>> hyperparameters("dhel")
      {'temperature': 0.2, 'form': 'mean'}
    """
    parameters = inspect.signature(LOSSES[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _CONTRACT}


def needs_labels(name: str) -> bool:
    """Whether a loss compares labels."""
    return "labels" in inspect.signature(LOSSES[name]).parameters


def takes_many_views(name: str) -> bool:
    """Whether a loss takes any number of views, rather than two."""
    return "views" in inspect.signature(LOSSES[name]).parameters


@dataclasses.dataclass(frozen=True)
class Objective:
    """loss + weight * VRNS, instance by instance: the function that is trained, which also tells its parts.

    With `learnable` the scale of the similarities is learnt through its logarithm: `siglip`'s scale is exp(log_scale),
    beside its bias, and the temperature of `info_nce` and `simclr` is exp(-log_scale). They start from `kwargs`, or
    from the loss's defaults.
    """

    name: str
    kwargs: Mapping[str, Any]
    vrns_weight: float
    num_instances: int
    learnable: bool = False

    def parameters(self) -> dict[str, jax.Array]:
        """What is learnt of the loss, float32 scalars, at its start: `log_scale`, and a `bias`; nothing by default."""
        if not self.learnable:
            return {}
        start = {**hyperparameters(self.name), **self.kwargs}
        log_scale = math.log(start["scale"]) if "scale" in start else -math.log(start["temperature"])
        learnt = {"log_scale": log_scale} | {name: start[name] for name in ("bias",) if name in start}
        return {name: jnp.float32(value) for name, value in learnt.items()}

    def __call__(
        self,
        instances: Instances,
        parameters: Mapping[str, jax.Array] | None = None,
        *,
        axis_name: spmd.AxisName = None,
    ) -> dict[str, jax.Array]:
        """Values [m] of the whole, `"loss"`, and of its parts, by name.

        Args:
          instances: this device's share; of more than two views, VRNS is the mean over all pairs of them.
          parameters: what is learnt, of the structure of `parameters()`.
          axis_name: compare with the instances of all devices along this mapped axis.
        """
        options = {"ids": instances.ids, "axis_name": axis_name}
        contrastive = self._contrastive(instances, {**self.kwargs, **_learnt_kwargs(self.name, parameters)}, options)
        parts = {"loss": contrastive, self.name: contrastive}
        if self.vrns_weight:
            pairs = itertools.combinations(instances.views, 2)
            each = [losses.vrns(u, v, num_instances=self.num_instances, **options) for u, v in pairs]
            parts["vrns"] = jnp.mean(jnp.stack(each), axis=0)
            parts["loss"] = contrastive + self.vrns_weight * parts["vrns"]
        return parts

    def _contrastive(self, instances, kwargs, options):
        loss = LOSSES[self.name]
        if takes_many_views(self.name):
            return loss(jnp.stack(instances.views), **kwargs, **options)
        u, v = instances.views
        labels = (instances.labels,) if needs_labels(self.name) else ()
        return loss(u, v, *labels, **kwargs, **options)


def _learnt_kwargs(name: str, parameters: Mapping[str, jax.Array] | None) -> dict[str, jax.Array]:
    """The hyperparameters of a loss that learnt parameters stand for."""
    if not parameters:
        return {}
    if "scale" in hyperparameters(name):
        return {"scale": jnp.exp(parameters["log_scale"]), "bias": parameters["bias"]}
    return {"temperature": jnp.exp(-parameters["log_scale"])}


def logged(parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What is learnt, as it is logged: `scale`, which is one over the temperature, and the others as they are."""
    others = {name: x for name, x in parameters.items() if name != "log_scale"}
    return others | ({"scale": jnp.exp(parameters["log_scale"])} if parameters else {})


def bounded(parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Parameters after a step with log_scale at most log 100, as CLIP bounds it.

    The parameter itself is bounded, after each step: were it bounded only where it is used, it would have no gradient
    beyond the bound, and never come back.
    """
    if not parameters:
        return {}
    return {**parameters, "log_scale": jnp.minimum(parameters["log_scale"], math.log(MAX_SCALE))}
