"""What a training step is given: all that never changes during a run, and all that does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from contrastive_jax.data import views
from contrastive_jax.training import objective as objective_lib


class Params(NamedTuple):
    """All that is trained."""

    model: Any
    loss: dict[str, Any]  # scalars, empty where nothing of the loss is learnt


class TrainState(NamedTuple):
    """All that a run carries from step to step; a checkpoint holds it whole."""

    step: Any  # [] int32, steps taken
    params: Params
    batch_stats: Any
    opt_state: Any
    estimator: dict[str, Any]  # of a small-batch estimator, see `estimator`; empty for the other losses
    skipped: Any  # [] int32, steps whose update was dropped because the loss or its gradient was not finite
    skipped_in_a_row: Any  # [] int32, those since the last that was not


class Program(NamedTuple):
    """All that a step needs and that never changes during a run."""

    graphdef: Any
    optimizer: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    objective: objective_lib.Objective
    view_config: views.ViewConfig
    num_views: int
    pass_size: int  # instances encoded at once, over all devices; a larger batch is encoded in pieces
    contrast_size: int
    steps_per_epoch: int
    seed: int
    skip_nonfinite: bool  # drop the update of a step whose loss or gradient is not finite
    num_bins: int  # 0: the distribution of similarities is not computed
    queue_shape: tuple[int, int]  # past embeddings that moco keeps, and their dimensions
    encoder_momentum: float | None  # of moco's momentum encoder; None: there is none

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of a batch that a step reads."""
        return ("image", "id", "label") if objective_lib.needs_labels(self.objective.name) else ("image", "id")
