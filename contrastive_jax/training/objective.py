"""From a loss and its hyperparameters to the function that is trained."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax import losses, spmd
from contrastive_jax.losses import contract

LOSSES: dict[str, Callable[..., Any]] = {name: x for name, x in vars(losses).items() if contract.is_declared(x)}
MAX_SCALE = 100.0


class Instances(NamedTuple):
    """Some instances that are compared with each other, as an objective sees them."""

    views: tuple[Any, ...]  # V of [m, d], the embeddings of one view each
    ids: Any  # [m] int, instance ids
    labels: Any = None  # [m] int, where the loss needs them
    keys: Any = None  # like views, of the momentum encoder, if there is one
    remembered: Any = None  # {name: [m]}, arguments that the loss's memory holds of each instance


@dataclasses.dataclass(frozen=True)
class Objective:
    r"""loss + weight * VRNS, instance by instance: the function that is trained, which also tells its parts.

    With `learnable` the scale of the similarities is learnt through its logarithm: `siglip`'s scale is exp(log_scale),
    beside its bias, and the temperature of `info_nce` and `simclr` is exp(-log_scale). They start from `kwargs`, or
    from the loss's defaults.

    Args:
      loss: `f(u, v, *, ids, axis_name, ...) -> [m]`, or one that `losses.contract.declare` says more of.
      kwargs: its hyperparameters; those left out keep the loss's defaults.
      vrns_weight: of `losses.vrns`.
      num_instances: n, the size of the training set.
      learnable: whether the hyperparameters that the loss declares learnable are learnt.

    Raises:
      ValueError: if num_instances is missing where VRNS or the loss's memory depends on it.

    Example:
      >>> u, v = jax.random.normal(jax.random.key(0), (2, 8, 16))
      >>> parts = Objective(losses.dhel, {"temperature": 0.5})(Instances((u, v), jnp.arange(8)))
      >>> parts["loss"].shape
      (8,)
    """

    loss: Callable[..., Any]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vrns_weight: float = 0.0
    num_instances: int | None = None
    learnable: bool = False

    def __post_init__(self) -> None:
        if self.num_instances is None and (self.vrns_weight or self.needs.memory):
            what = "VRNS" if self.vrns_weight else self.name
            raise ValueError(f"num_instances: expected the size of the training set, which {what} needs, got None.")

    @property
    def name(self) -> str:
        """The name that the loss is logged under."""
        return contract.name_of(self.loss)

    @property
    def needs(self) -> contract.Needs:
        """What the loss needs of a step."""
        return contract.needs_of(self.loss)

    def parameters(self) -> dict[str, jax.Array]:
        """What is learnt of the loss, float32 scalars, at its start: `log_scale`, and a `bias`; nothing by default."""
        if not self.learnable:
            return {}
        start = {**contract.hyperparameters(self.loss), **self.kwargs}
        log_scale = math.log(start["scale"]) if "scale" in self.needs.learnable else -math.log(start["temperature"])
        others = {name: start[name] for name in self.needs.learnable if name not in ("scale", "temperature")}
        return {name: jnp.float32(value) for name, value in {"log_scale": log_scale, **others}.items()}

    def __call__(
        self,
        instances: Instances,
        parameters: Mapping[str, jax.Array] | None = None,
        shared: Mapping[str, jax.Array] | None = None,
        *,
        axis_name: spmd.AxisName = None,
    ) -> dict[str, Any]:
        """Values [m] of the whole, `"loss"`, and of its parts, by name; what the loss returns besides, `"returned"`.

        Args:
          instances: this device's share; of more than two views, VRNS is the mean over all pairs of them.
          parameters: what is learnt, of the structure of `parameters()`.
          shared: arguments of the loss that all instances share, from its memory.
          axis_name: compare with the instances of all devices along this mapped axis.

        Raises:
          ValueError: if the loss does not return one value for each instance.
        """
        options = {"ids": instances.ids, "axis_name": axis_name}
        values, returned = self._evaluate(instances, parameters, shared, options)
        parts = {self.name: values, "loss": values}
        if self.vrns_weight and self.num_instances:
            pairs = itertools.combinations(instances.views, 2)
            each = [losses.vrns(u, v, num_instances=self.num_instances, **options) for u, v in pairs]
            parts["vrns"] = jnp.mean(jnp.stack(each), axis=0)
            parts["loss"] = values + self.vrns_weight * parts["vrns"]
        return parts | ({"returned": returned} if returned else {})

    def _evaluate(
        self,
        instances: Instances,
        parameters: Mapping[str, jax.Array] | None,
        shared: Mapping[str, jax.Array] | None,
        options: Mapping[str, Any],
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss's values [m], and what it returns beside them, by name."""
        needs = self.needs
        kwargs = {**self.kwargs, **options, **(shared or {}), **(instances.remembered or {})}
        kwargs |= _from_learnt(needs, parameters)
        kwargs |= {"labels": instances.labels} if needs.labels else {}
        kwargs |= {"keys": instances.keys} if instances.keys is not None else {}
        views = (jnp.stack(instances.views),) if needs.many_views else instances.views
        found = self.loss(*views, **kwargs)
        values, *others = found if needs.memory and needs.memory.returns else (found,)
        shape = instances.ids.shape
        if jnp.shape(values) != shape:
            raise ValueError(
                f"loss {self.name!r}: expected one value for each pair, of shape {shape}, got {jnp.shape(values)}; "
                "return them unreduced."
            )
        return values, dict(zip(needs.memory.returns, others, strict=True)) if needs.memory else {}


def _from_learnt(needs: contract.Needs, parameters: Mapping[str, jax.Array] | None) -> dict[str, jax.Array]:
    """The hyperparameters of a loss that learnt parameters stand for."""
    if not parameters:
        return {}
    others = {name: x for name, x in parameters.items() if name != "log_scale"}
    scale = parameters["log_scale"]
    return others | ({"scale": jnp.exp(scale)} if "scale" in needs.learnable else {"temperature": jnp.exp(-scale)})


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
