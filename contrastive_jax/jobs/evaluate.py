"""Evaluate the encoder before and after training: scores, geometry and similarities over whole data sets."""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import evaluation, metrics, models, pairwise
from contrastive_jax.data import batches, sources, views
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import parts
from contrastive_jax.jobs.encoder import compute_features
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.logs import rows
from contrastive_jax.training.state import TrainState

MAX_TEST_IMAGES = 10_000
MAX_TRAINING_PAIRS = 5_000  # Lee 2025, Table 1
MAX_RAW_PIXELS_GIB = 4
UNTRAINED, TRAINED = "untrained encoder", "trained encoder"


class Evaluation(NamedTuple):
    """The results of an evaluation, by representation."""

    scores: dict[str, evaluation.Scores]  # empty where the images have no labels
    geometry: dict[str, evaluation.Geometry]  # of the test set
    similarity: dict[str, metrics.SimilarityDistribution]  # of at most `MAX_TRAINING_PAIRS` of the training set
    whole: dict[str, evaluation.Similarities]  # of the whole training set


def trace(job: Job) -> None:
    """Trace the evaluation, so that errors of the encoder appear before training.

    Raises:
      UsageError: with what the encoder says.
    """
    size = job.config.evaluation.batch_size
    images = jax.ShapeDtypeStruct((size, *job.train.image_shape), np.uint8)
    ids = jax.ShapeDtypeStruct((size,), np.int32)
    encoder = _without_optimizer(job.initial)
    try:
        jax.eval_shape(_features(job), encoder, images)
        jax.eval_shape(_project(job), encoder, images, ids)
    except Exception as error:  # a user's part may raise anything
        raise UsageError(f"the encoder cannot be evaluated (train=False): {parts.describe_error(error)}") from error


def evaluate(job: Job, state: TrainState, known: Evaluation | None = None) -> Evaluation:
    """Evaluate the untrained encoder, the trained one and, for the scores, raw pixels.

    Geometry and similarities are those of the projections that the loss compares, with running statistics, on two
    random views of each image from `views.EVALUATION_EPOCH`, which training never uses.

    Args:
      job: the run.
      state: its state after training.
      known: the evaluation of a run that differs in its training alone; what they share is taken from it.
    """
    encoders = {UNTRAINED: job.initial, TRAINED: state} if known is None else {TRAINED: state}
    encoders = {name: jax.device_put(_without_optimizer(encoder)) for name, encoder in encoders.items()}
    scores = _score(job, encoders, known)
    print("Measuring the embeddings ...", file=sys.stderr)
    embed = _embedder(job)
    some = batches.sample(len(job.train), MAX_TRAINING_PAIRS, seed=job.config.seed)
    found = Evaluation(scores, {}, {}, {})
    if known is not None:
        found = Evaluation(scores, dict(known.geometry), dict(known.similarity), dict(known.whole))
    for name, encoder in encoders.items():
        found.geometry[name] = evaluation.geometry(*embed(encoder, job.test, MAX_TEST_IMAGES))
        u, v = embed(encoder, job.train, len(job.train))
        found.similarity[name] = metrics.to_host(_describe(u[some], v[some], num_bins=job.config.log.num_bins))
        found.whole[name] = _measure_whole(u, v)
    return found


def _measure_whole(u: np.ndarray, v: np.ndarray) -> evaluation.Similarities:
    negatives = jax.jit(metrics.negative_moments)(u, v)
    positive = np.einsum("nd,nd->n", u, v).mean(dtype=np.float64)
    return evaluation.Similarities(len(u), positive.item(), float(negatives.mean), float(negatives.variance))


# Compiled once for all runs of a process that have the same model and views.
_describe = jax.jit(metrics.similarity_distribution, static_argnames="num_bins")
_compute_features = jax.jit(compute_features, static_argnums=(0, 1))


def _without_optimizer(state: TrainState) -> TrainState:
    return state._replace(opt_state=(), estimator={})


def _features(job: Job) -> Callable[[TrainState, jax.Array], jax.Array]:
    """(encoder, images) -> features of the un-augmented images."""

    def features(encoder: TrainState, images: jax.Array) -> jax.Array:
        program = job.program
        return compute_features(
            program.graphdef, program.view_config, encoder.params.model, encoder.model_state, images
        )

    return features


def _score(job: Job, encoders: dict[str, TrainState], known: Evaluation | None) -> dict[str, evaluation.Scores]:
    if sources.labels_of(job.train) is None or sources.labels_of(job.test) is None:
        print("Skipping the scores: the images have no labels.", file=sys.stderr)
        return {}
    representations: dict[str, Callable[..., jax.Array]] = (
        {"raw pixels": evaluation.raw_pixels}
        if known is None and scores_raw_pixels(job.config, job.train, job.test)
        else {}
    )
    features = functools.partial(_compute_features, job.program.graphdef, job.program.view_config)
    representations |= {
        name: functools.partial(features, encoder.params.model, encoder.model_state)
        for name, encoder in encoders.items()
    }
    scores = {} if known is None else dict(known.scores)
    for name, fn in representations.items():
        print(f"Evaluating {name} ...", file=sys.stderr)
        train, test = (batches.sequential(s, job.config.evaluation.batch_size) for s in (job.train, job.test))
        scores[name] = evaluation.score(fn, train, test, settings(job))
    return scores


def scores_raw_pixels(config: ConfigDict, train: sources.Source, test: sources.Source) -> bool:
    """Whether the pixels themselves are scored: if the configuration says so, and they fit. Prints why not."""
    if not config.evaluation.raw_pixels:
        return False
    gigabytes = (len(train) + len(test)) * np.prod(train.image_shape) * 4 / 2**30
    if gigabytes > MAX_RAW_PIXELS_GIB:
        print(
            f"Skipping the scores of raw pixels: as features they would take {gigabytes:.1f} GiB, more than "
            f"{MAX_RAW_PIXELS_GIB}.",
            file=sys.stderr,
        )
    return bool(gigabytes <= MAX_RAW_PIXELS_GIB)


def settings(job: Job) -> evaluation.Settings:
    """How the run's representations are evaluated."""
    return make_settings(job.config, job.train)


def make_settings(config: ConfigDict, train: sources.Source) -> evaluation.Settings:
    """How representations of these training images are evaluated by the settings of a configuration."""
    e = config.evaluation
    return evaluation.Settings(
        num_classes=sources.num_classes_of(train) or 0,
        probe_epochs=e.probe_epochs,
        probe_learning_rate=e.probe_learning_rate,
        knn_neighbours=min(e.knn_neighbours, len(train)),
        knn_temperature=e.knn_temperature,
        labels_per_class=e.labels_per_class,
        draws=e.draws,
        seed=config.seed,
    )


def _project(job: Job) -> Callable[[TrainState, jax.Array, jax.Array], jax.Array]:
    """(encoder, images [b, ...], ids [b]) -> the unit-norm embeddings [2, b, d] of two views."""
    program = job.program

    def project(encoder: TrainState, images: jax.Array, ids: jax.Array) -> jax.Array:
        model = program.graphdef, encoder.params.model, encoder.model_state
        return project_views(model, images, ids, view_config=program.view_config, seed=program.seed)

    return project


def project_views(
    model: tuple[Any, Any, Any],
    images: jax.Array,
    ids: jax.Array,
    *,
    view_config: views.ViewConfig,
    seed: int | jax.Array,
) -> jax.Array:
    """The unit-norm embeddings [2, b, d] of two random views of images [b, h, w, c], which training never uses.

    Args:
      model: (graphdef, params, state).
      images: uint8.
      ids: int32 [b], of the images.
      view_config: how the views are made.
      seed: of the views.
    """
    pair = views.random_views(images, ids, seed=seed, epoch=views.EVALUATION_EPOCH, config=view_config)
    projections, _ = models.apply(*model, pair.reshape(-1, *pair.shape[2:]), train=False)
    return jnp.stack(jnp.split(pairwise.normalize(projections), 2))


_project_views = jax.jit(project_views, static_argnames="view_config")


def _embedder(job: Job) -> Callable[[TrainState, sources.Source, int], np.ndarray]:
    """Make a function (encoder, source, max_images) -> unit-norm embeddings [2, n, d] of two views."""
    options = {"view_config": job.program.view_config, "seed": np.uint32(job.config.seed)}

    def embed(encoder: TrainState, source: sources.Source, max_images: int) -> np.ndarray:
        model = job.program.graphdef, encoder.params.model, encoder.model_state
        project = functools.partial(_project_views, model, **options)
        return embed_source(project, source, max_images, config=job.config)

    return embed


def embed_source(
    project: Callable[[np.ndarray, np.ndarray], jax.Array],
    source: sources.Source,
    max_images: int,
    *,
    config: ConfigDict,
) -> np.ndarray:
    """Embeddings [2, n, d] of two views of the images of a source, or of a sample by the run's seed if there are more.

    Args:
      project: (images [b, ...], ids [b]) -> [2, b, d].
      source: the images.
      max_images: how many to embed at most.
      config: of the run.
    """
    chosen = batches.sample(len(source), max_images, seed=config.seed)
    found = [
        np.asarray(project(batch["image"], batch["id"]))[:, batch["mask"]]
        for batch in batches.sequential(source, config.evaluation.batch_size, indices=chosen)
    ]
    return np.concatenate(found, axis=1)


def summarize(job: Job, found: Evaluation) -> dict[str, Any]:
    """The results for `summary.json`."""
    return {
        "evaluation": {name: row._asdict() for name, row in found.scores.items()},
        "geometry": {name: row._asdict() for name, row in found.geometry.items()},
        "training_set_similarity": {
            "pairs": int(found.similarity[TRAINED].positive.count),
            **{name: rows.get_moments(distribution) for name, distribution in found.similarity.items()},
            **_optimum(job),
        },
        "whole_training_set_similarity": {name: row._asdict() for name, row in found.whole.items()},
    }


def format_tables(job: Job, found: Evaluation, last_row: dict[str, Any]) -> str:
    """Format the results as Markdown tables; the last one includes the last step's similarities, if logged."""
    measured = {}
    if "positive_mean" in last_row:
        measured["in batch, last step"] = _similarities(last_row)
    for name, label in ((UNTRAINED, "training set, untrained"), (TRAINED, "training set, trained")):
        measured[label] = found.whole[name]
        if len(job.train) > MAX_TRAINING_PAIRS:  # the paper's number of pairs
            measured[f"{label}, a sample"] = _similarities(rows.flatten_moments(found.similarity[name]))
    optimum = _optimum(job)
    similarities = evaluation.format_similarities(
        measured,
        negative_optimum=optimum["theory_full_batch_negative"],
        variance_bounds=(optimum["theory_variance_least"], optimum["theory_variance_greatest"]),
    )
    scores = [evaluation.format_scores(found.scores, settings(job))] if found.scores else []
    return "\n\n".join([*scores, evaluation.format_geometry(found.geometry), similarities])


def _similarities(row: Mapping[str, Any]) -> evaluation.Similarities:
    names = ("positive_count", "positive_mean", "cross_view_mean", "cross_view_variance")
    return evaluation.Similarities(*(row[name] for name in names))


def _optimum(job: Job) -> dict[str, float]:
    return rows.compute_optimum(num_instances=len(job.train), contrast_size=job.contrast_size)
