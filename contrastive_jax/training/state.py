"""The inputs of a training step: the program, which never changes during a run, and the state, which does."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from contrastive_jax.data import views
from contrastive_jax.training.objective import Objective


class Params(NamedTuple):
    """All that is trained."""

    model: Any
    loss: dict[str, Any]  # scalars; empty if the loss learns nothing


class TrainState(NamedTuple):
    """Everything that a run carries from step to step; a checkpoint holds all of it."""

    step: Any  # [] int32, steps taken
    params: Params
    model_state: Any  # the model without its parameters: running statistics, random keys, ...
    opt_state: Any
    estimator: dict[str, Any]  # state of a small-batch estimator, see `estimator`; empty for other losses
    skipped: Any  # [] int32, steps whose update was dropped: loss, gradient or new parameters not finite
    skipped_in_a_row: Any  # [] int32, steps skipped since the last finite one


class Program(NamedTuple):
    """Everything that a step needs and that never changes during a run."""

    graphdef: Any
    optimizer: optax.GradientTransformation
    objective: Objective
    view_config: views.ViewConfig
    batch_size: int | None = None  # instances encoded at once, over all devices; None: the whole step
    contrast_size: int | None = None  # instances compared with each other; None: the whole step
    num_views: int = 2
    schedule: Callable[[jax.Array], jax.Array] | None = None  # step -> learning rate, for the log
    steps_per_epoch: int = 1
    seed: Any = 0  # an int; traced where it differs between the runs of a stack
    skip_nonfinite: bool = False  # drop the update if the loss, gradient or new parameters are not finite
    metrics: Mapping[str, Callable[..., Any]] = {}  # what else a step logs, see `measure`
    dimensions: int = 0  # d of the embeddings, for a loss with a queue
    queue_size: int = 0
    encoder_momentum: float | None = None  # momentum of the momentum encoder; None: no such encoder

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of a batch that a step reads."""
        return ("image", "id", "label") if self.objective.needs.labels else ("image", "id")
