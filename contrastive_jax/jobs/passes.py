"""The passes of an encoder over the images that it is evaluated on, compiled once for all of them."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import models, pairwise
from contrastive_jax.data import batches, sources, views
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import parts
from contrastive_jax.jobs.encoder import compute_features
from contrastive_jax.jobs.job import Job
from contrastive_jax.training.state import TrainState

Watch = Callable[[Iterable[Mapping[str, Any]]], Iterable[Mapping[str, Any]]]  # shows how far a pass is


class Passes(NamedTuple):
    """Two functions of a run, jitted. What is evaluated while it trains compiles what is evaluated at its end.

    Attributes:
      features: (encoder, images [b, h, w, c]) -> features [b, f] of the un-augmented images.
      project: (encoder, images, ids [b]) -> unit-norm embeddings [2, b, d] of two views.
    """

    features: Callable[[TrainState, jax.Array], jax.Array]
    project: Callable[[TrainState, jax.Array, jax.Array], jax.Array]


def make(job: Job) -> Passes:
    """The passes of a run; compiled once for all runs of a process that have the same model and views."""
    return _make(job, _compute_features, _project_views)


def trace(job: Job) -> None:
    """Trace the evaluation, so that errors of the encoder appear before training.

    Raises:
      UsageError: with what the encoder says.
    """
    size, encoder = job.config.evaluation.batch_size, strip(job.initial)
    ids = jax.ShapeDtypeStruct((size,), np.int32)
    features, project = _make(job, compute_features, project_views)
    try:
        for shape in {tuple(source.image_shape) for source in (job.train, job.test, job.bank)}:
            images = jax.ShapeDtypeStruct((size, *shape), np.uint8)
            jax.eval_shape(features, encoder, images)
            jax.eval_shape(project, encoder, images, ids)
    except Exception as error:  # a user's part may raise anything
        raise UsageError(f"the encoder cannot be evaluated (train=False): {parts.describe_error(error)}") from error


def strip(state: TrainState) -> TrainState:
    """A state without what only training needs."""
    return state._replace(opt_state=(), estimator={})


def place(state: TrainState) -> TrainState:
    """The encoder of a state, on the device that evaluates."""
    return jax.device_put(jax.tree.map(np.asarray, strip(state)))


def _make(job: Job, compute: Callable[..., jax.Array], project_model: Callable[..., jax.Array]) -> Passes:
    program, seed = job.program, np.uint32(job.config.seed)

    def features(encoder: TrainState, images: jax.Array) -> jax.Array:
        return compute(program.graphdef, program.view_config, encoder.params.model, encoder.model_state, images)

    def project(encoder: TrainState, images: jax.Array, ids: jax.Array) -> jax.Array:
        model = program.graphdef, encoder.params.model, encoder.model_state
        return project_model(model, images, ids, view_config=program.view_config, seed=seed)

    return Passes(features, project)


def project_views(
    model: tuple[Any, Any, Any], images: jax.Array, ids: jax.Array, *, view_config: views.ViewConfig, seed: Any
) -> jax.Array:
    """The unit-norm embeddings [2, b, d] of two random views of images [b, h, w, c], which training never uses.

    Args:
      model: (graphdef, params, state).
      images: uint8.
      ids: int32 [b], of the images.
      view_config: how the views are made.
      seed: of the views; may be traced.
    """
    pair = views.random_views(images, ids, seed=seed, epoch=views.EVALUATION_EPOCH, config=view_config)
    projections, _ = models.apply(*model, pair.reshape(-1, *pair.shape[2:]), train=False)
    return jnp.stack(jnp.split(pairwise.normalize(projections), 2))


_compute_features = jax.jit(compute_features, static_argnums=(0, 1))
_project_views = jax.jit(project_views, static_argnames="view_config")


def embed_source(
    project: Callable[[np.ndarray, np.ndarray], jax.Array],
    source: sources.Source,
    max_images: int,
    *,
    config: ConfigDict,
    watch: Watch = lambda found: found,
) -> np.ndarray:
    """Embeddings [2, n, d] of two views of the images of a source, or of a sample by the run's seed if there are more.

    Args:
      project: (images [b, ...], ids [b]) -> [2, b, d].
      source: the images.
      max_images: how many to embed at most.
      config: of the run.
      watch: shows how far the pass is.
    """
    chosen = batches.sample(len(source), max_images, seed=config.seed)
    found = [
        np.asarray(project(batch["image"], batch["id"]))[:, batch["mask"]]
        for batch in watch(batches.sequential(source, config.evaluation.batch_size, indices=chosen))
    ]
    return np.concatenate(found, axis=1)


def encode_sample(
    features: Callable[[np.ndarray], Any],
    source: sources.Source,
    max_images: int,
    *,
    config: ConfigDict,
    watch: Watch = lambda found: found,
) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, f] of the images of a source, or of a sample by the run's seed, and their indices [n].

    Args:
      features: images [b, ...] -> [b, f].
      source: the images.
      max_images: how many to encode at most.
      config: of the run.
      watch: shows how far the pass is.
    """
    chosen = batches.sample(len(source), max_images, seed=config.seed)
    found = [
        np.asarray(features(batch["image"]))[batch["mask"]]
        for batch in watch(batches.sequential(source, config.evaluation.batch_size, indices=chosen))
    ]
    return np.concatenate(found), chosen


def bind(encoder: TrainState, function: Callable[..., Any]) -> Callable[..., Any]:
    """A pass of one encoder."""
    return functools.partial(function, encoder)
