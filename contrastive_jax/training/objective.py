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

LOSSES: dict[str, Callable[..., Any]] = {
    "info_nce": losses.info_nce,
    "simclr": losses.simclr,
    "dcl": losses.dcl,
    "dhel": losses.dhel,
    "siglip": losses.siglip,
    "spectral": losses.spectral,
    "kcl": losses.kcl,
    "align_uniform": losses.align_uniform,
    "moco": losses.moco,
    "sogclr": losses.sogclr,
    "sup_con": losses.sup_con,
    "multi_view_info_nce": losses.multi_view_info_nce,
    "multi_view_dhel": losses.multi_view_dhel,
}
# Those that are bounded below in what is learnt; DCL and DHEL fall without end as their temperature does.
LEARNABLE_LOSSES = ("info_nce", "simclr", "siglip")
MAX_SCALE = 100.0
_CONTRACT = {"ids", "queue_ids", "keys", "axis_name", "implementation"}


class Instances(NamedTuple):
    """Some instances that are compared with each other, as an objective sees them."""

    views: tuple[Any, ...]  # V of [m, d], the embeddings of one view each
    ids: Any  # [m] int, instance ids
    labels: Any = None  # [m] int, where the loss needs them
    keys: Any = None  # like views, of the momentum encoder, if there is one
    log_average: Any = None  # [m], where the loss is an average over past batches


class Queue(NamedTuple):
    """Past embeddings that every instance is compared with."""

    embeddings: Any  # [k, d]
    ids: Any  # [k] int, the instances they are of


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


def shapes(name: str, num_views: int) -> tuple[Instances, Queue | None]:
    """Two instances and a queue as a loss sees them, in shapes alone."""
    embeddings, numbers = jax.ShapeDtypeStruct((2, 2), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    averages = jax.ShapeDtypeStruct((2,), jnp.float32) if name == "sogclr" else None
    instances = Instances((embeddings,) * num_views, ids=numbers, labels=numbers, log_average=averages)
    return instances, Queue(embeddings, numbers) if name == "moco" else None


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
        queue: Queue | None = None,
        *,
        axis_name: spmd.AxisName = None,
    ) -> dict[str, jax.Array]:
        """Values [m] of the whole, `"loss"`, and of its parts, by name; `sogclr`'s new `"log_average"` [m] besides.

        Args:
          instances: this device's share; of more than two views, VRNS is the mean over all pairs of them.
          parameters: what is learnt, of the structure of `parameters()`.
          queue: where the loss has one.
          axis_name: compare with the instances of all devices along this mapped axis.
        """
        options = {"ids": instances.ids, "axis_name": axis_name}
        kwargs = {**self.kwargs, **_learnt_kwargs(self.name, parameters)}
        contrastive, kept = self._contrastive(instances, queue, kwargs | options)
        parts = {"loss": contrastive, self.name: contrastive, **kept}
        if self.vrns_weight:
            pairs = itertools.combinations(instances.views, 2)
            each = [losses.vrns(u, v, num_instances=self.num_instances, **options) for u, v in pairs]
            parts["vrns"] = jnp.mean(jnp.stack(each), axis=0)
            parts["loss"] = contrastive + self.vrns_weight * parts["vrns"]
        return parts

    def _contrastive(self, instances, queue, kwargs):
        """The loss's values, and what it keeps of each instance for the instance's next batch, by name."""
        loss = LOSSES[self.name]
        if takes_many_views(self.name):
            return loss(jnp.stack(instances.views), **kwargs), {}
        u, v = instances.views
        if queue is not None:
            return loss(u, v, queue.embeddings, queue_ids=queue.ids, keys=instances.keys, **kwargs), {}
        if instances.log_average is not None:
            values, log_average = loss(u, v, instances.log_average, **kwargs)
            return values, {"log_average": log_average}
        labels = (instances.labels,) if needs_labels(self.name) else ()
        return loss(u, v, *labels, **kwargs), {}


def _learnt_kwargs(name: str, parameters: Mapping[str, jax.Array] | None) -> dict[str, jax.Array]:
    """The hyperparameters of a loss that learnt parameters stand for."""
    if not parameters:
        return {}
    if "scale" in hyperparameters(name):
        return {"scale": jnp.exp(parameters["log_scale"]), "bias": parameters["bias"]}
    return {"temperature": jnp.exp(-parameters["log_scale"])}


def describe_learnt(parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What is learnt, as it is logged: `scale`, which is one over the temperature, and the others as they are."""
    others = {name: x for name, x in parameters.items() if name != "log_scale"}
    return others | ({"scale": jnp.exp(parameters["log_scale"])} if parameters else {})


def clip_scale(parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Parameters after a step with log_scale at most log 100, as CLIP bounds it.

    The parameter itself is bounded, after each step: were it bounded only where it is used, it would have no gradient
    beyond the bound, and never come back.
    """
    if not parameters:
        return {}
    return {**parameters, "log_scale": jnp.minimum(parameters["log_scale"], math.log(MAX_SCALE))}
