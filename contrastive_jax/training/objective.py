"""The objective: a loss with its hyperparameters, its learnt parameters and VRNS, as the function that is trained."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax import losses, pairwise, spmd
from contrastive_jax.losses import contract

LOSSES: dict[str, Callable[..., Any]] = {name: x for name, x in vars(losses).items() if contract.is_declared(x)}
MAX_SCALE = 100.0
# Names in the log that a loss, which is logged by its own name, may not have.
_TAKEN = frozenset(
    [
        "step",
        "epoch",
        "vrns",
        "learning_rate",
        "gradient_norm",
        "parameter_norm",
        "scale",
        "bias",
        "skipped",
        "skipped_in_a_row",
        "returned",
        "distribution",
        "cross_view",
        "images_per_second",
        "waited_for_data",
    ]
)
_TAKEN_PREFIXES = ("positive_", "cross_view_", "within_view_", "theory_")


class Instances(NamedTuple):
    """Instances that an objective compares with each other."""

    views: tuple[Any, ...]  # V arrays [m, d], the embeddings of each view
    ids: Any  # [m] int, instance ids
    labels: Any = None  # [m] int, if the loss needs them
    keys: Any = None  # like views, from the momentum encoder, if there is one
    remembered: Any = None  # {name: [m]}, arguments from the loss's memory, one for each instance


@dataclasses.dataclass(frozen=True)
class Objective:
    r"""The function that is trained: loss + vrns_weight * VRNS for each instance, and the parts of that sum.

    If `learnable`, the scale of the similarities is learnt through its logarithm: the scale of `siglip` is
    exp(log_scale), and its bias is learnt too; the temperature of `info_nce` and `simclr` is exp(-log_scale). The
    initial values come from `kwargs`, or else from the defaults of the loss.

    Args:
      loss: `f(u, v, *, ids, axis_name, ...) -> [m]`, or a loss with other arguments, see `losses.contract.declare`.
      kwargs: the hyperparameters of the loss; the others keep the defaults of the loss.
      vrns_weight: the weight of `losses.vrns`; 0 leaves VRNS out, unless it is a traced 0, of which nobody knows.
      num_instances: n, the size of the training set; required if VRNS or the memory of the loss depends on it.
      learnable: whether to learn the hyperparameters that the loss declares learnable.
      precision: of the products of the loss and of VRNS, see `pairwise.similarities`. A loss without a parameter
        `precision` takes "highest" alone, and is not passed it.

    Raises:
      ValueError: if num_instances is required but None, or the loss does not take the precision.

    Example:
      >>> u, v = jax.random.normal(jax.random.key(0), (2, 8, 16))
      >>> parts = Objective(losses.dhel, {"temperature": 0.5})(Instances((u, v), jnp.arange(8)))
      >>> parts["loss"].shape
      (8,)
    """

    loss: Callable[..., Any]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vrns_weight: float | jax.Array = 0.0
    num_instances: int | None = None
    learnable: bool = False
    precision: pairwise.Precision = "highest"

    def __post_init__(self) -> None:
        if self.name in _TAKEN or self.name.startswith(_TAKEN_PREFIXES):
            raise ValueError(
                f"loss: expected a name that the log does not use, got {self.name!r}; rename the function."
            )
        if self.precision != "highest" and not contract.takes_precision(self.loss):
            raise ValueError(
                f"precision: expected 'highest' for loss {self.name!r}, which has no parameter `precision`, "
                f"got {self.precision!s}; give the function that parameter, and pass it on to its products."
            )
        if self.num_instances is None and (self._has_vrns or self.needs.memory):
            what = "VRNS" if self._has_vrns else self.name
            raise ValueError(f"num_instances: expected the size of the training set, which {what} needs, got None.")

    @property
    def name(self) -> str:
        """The name under which the loss is logged."""
        return contract.name_of(self.loss)

    @property
    def needs(self) -> contract.Needs:
        """What the loss needs of a step."""
        return contract.needs_of(self.loss)

    @property
    def _has_vrns(self) -> bool:
        # A traced weight may be 0 in some runs of a stack, and then adds 0: VRNS and its gradient are finite.
        return isinstance(self.vrns_weight, jax.core.Tracer) or bool(self.vrns_weight)

    def parameters(self) -> dict[str, jax.Array]:
        """The initial learnt parameters, float32 scalars: `log_scale` and perhaps `bias`; empty by default."""
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
        """Evaluate the objective.

        Args:
          instances: this device's share. With more than two views, VRNS is the mean over all pairs of views.
          parameters: the learnt parameters, in the structure of `parameters()`.
          shared: arguments of the loss that all instances share, from its memory.
          axis_name: compare with the instances of all devices along this mapped axis.

        Returns:
          Values [m] by name: `"loss"`, the sum, and its parts, the loss under its own name and `"vrns"`. What the loss
          returns besides its values is under `"returned"`.

        Raises:
          ValueError: if the loss does not return one value for each instance.
        """
        options: dict[str, Any] = {"ids": instances.ids, "axis_name": axis_name}
        options |= {} if self.precision == "highest" else {"precision": self.precision}
        values, returned = self._evaluate(instances, parameters, shared, options)
        parts = {self.name: values, "loss": values}
        if self._has_vrns and self.num_instances:
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
        """The values [m] of the loss, and what it returns besides them, by name."""
        needs = self.needs
        kwargs = {**self.kwargs, **options, **(shared or {}), **(instances.remembered or {})}
        kwargs |= _compute_hyperparameters(needs, parameters)
        kwargs |= {"labels": instances.labels} if needs.labels else {}
        kwargs |= {"keys": instances.keys} if instances.keys is not None else {}
        views = (jnp.stack(instances.views),) if needs.many_views else instances.views
        found = self.loss(*views, **kwargs)
        values, *others = found if needs.memory and needs.memory.returns else (found,)
        shape = instances.ids.shape
        if jnp.shape(values) != shape or not jnp.issubdtype(jnp.result_type(values), jnp.floating):
            raise ValueError(
                f"loss {self.name!r}: expected one value for each pair, floats of shape {shape}, got "
                f"{jnp.result_type(values)} of shape {jnp.shape(values)}; "
                "return them unreduced."
            )
        return values, dict(zip(needs.memory.returns, others, strict=True)) if needs.memory else {}


def _compute_hyperparameters(needs: contract.Needs, parameters: Mapping[str, jax.Array] | None) -> dict[str, jax.Array]:
    """The hyperparameters of a loss, computed from its learnt parameters."""
    if not parameters:
        return {}
    others = {name: x for name, x in parameters.items() if name != "log_scale"}
    log_scale = parameters["log_scale"]
    if "scale" in needs.learnable:
        return others | {"scale": pairwise.finite_exp(log_scale)}
    return others | {"temperature": pairwise.finite_exp(-log_scale)}


def describe_learnt(parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The learnt parameters as they are logged: `scale` (one over the temperature), and the others unchanged."""
    others = {name: x for name, x in parameters.items() if name != "log_scale"}
    return others | ({"scale": pairwise.finite_exp(parameters["log_scale"])} if parameters else {})


def clip_scale(parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Clip log_scale to at most log 100 after a step, as CLIP does.

    This clips the parameter itself. If only its use were clipped, its gradient would vanish beyond the bound, and the
    scale could never decrease again.
    """
    if not parameters:
        return {}
    return {**parameters, "log_scale": jnp.minimum(parameters["log_scale"], math.log(MAX_SCALE))}
