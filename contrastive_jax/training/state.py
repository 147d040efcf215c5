"""What a training step is given: all that never changes during a run, and all that does."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from contrastive_jax.data import views
from contrastive_jax.training.objective import Objective


class Params(NamedTuple):
    """All that is trained."""

    model: Any
    loss: dict[str, Any]  # scalars, empty where nothing of the loss is learnt


class TrainState(NamedTuple):
    """All that a run carries from step to step; a checkpoint holds it whole."""

    step: Any  # [] int32, steps taken
    params: Params
    model_state: Any  # of the model, all but its parameters: running statistics, the roots of its random numbers, ...
    opt_state: Any
    estimator: dict[str, Any]  # of a small-batch estimator, see `estimator`; empty for the other losses
    skipped: Any  # [] int32, steps whose update was dropped because the loss or its gradient was not finite
    skipped_in_a_row: Any  # [] int32, those since the last that was not


class Program(NamedTuple):
    """All that a step needs and that never changes during a run."""

    graphdef: Any
    optimizer: optax.GradientTransformation
    objective: Objective
    view_config: views.ViewConfig
    batch_size: int | None = None  # instances encoded at once, over all devices; None: all of a step
    contrast_size: int | None = None  # instances compared with each other; None: all of a step
    num_views: int = 2
    schedule: Callable[[jax.Array], jax.Array] | None = None  # step -> learning rate, to be logged
    steps_per_epoch: int = 1
    seed: int = 0
    skip_nonfinite: bool = False  # drop the update of a step whose loss or gradient is not finite
    metrics: Mapping[str, Callable[..., Any]] = {}  # what is logged besides, see `measure`
    dimensions: int = 0  # of an embedding, for a loss with a queue
    queue_size: int = 0
    encoder_momentum: float | None = None  # of the momentum encoder; None: there is none

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of a batch that a step reads."""
        return ("image", "id", "label") if self.objective.needs.labels else ("image", "id")
