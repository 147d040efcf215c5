"""The training step: pure functions of a state and a batch, without files, flags or processes."""

from contrastive_jax import extras

extras.check("flax", "optax", extra="train", what=__name__)

from contrastive_jax.training._create import Step as Step
from contrastive_jax.training._create import create as create
from contrastive_jax.training.objective import Objective as Objective
from contrastive_jax.training.state import Params as Params
from contrastive_jax.training.state import Program as Program
from contrastive_jax.training.state import TrainState as TrainState
from contrastive_jax.training.step import train_step as train_step
