"""Evaluate the encoder before and after training: scores, geometry and similarities over whole data sets."""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import evaluation, metrics
from contrastive_jax.data import batches, sources
from contrastive_jax.jobs import neighbours, passes
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.logs import rows
from contrastive_jax.jobs.logs.counter import Counter
from contrastive_jax.training.state import TrainState

MAX_TEST_IMAGES = 10_000
MAX_TRAINING_PAIRS = 5_000  # Lee 2025, Table 1
MAX_RAW_PIXELS_GIB = 4
UNTRAINED, TRAINED = "untrained encoder", "trained encoder"
SECONDS_BETWEEN_LINES = 10.0  # of the progress of a pass, where it is no bar
NO_LABELS = "the images have no labels, which scores need; config.data.evaluation_source names a set that has."


class Evaluation(NamedTuple):
    """The results of an evaluation, by representation."""

    scores: dict[str, evaluation.Scores]  # empty where the images have no labels
    geometry: dict[str, evaluation.Geometry]  # of the test set
    similarity: dict[str, metrics.SimilarityDistribution]  # of at most `MAX_TRAINING_PAIRS` of the training set
    whole: dict[str, evaluation.Similarities]  # of the whole training set
    neighbours: neighbours.Neighbours | None  # test images and the training images nearest to them, for a picture


def evaluate(
    job: Job, state: TrainState, encode: passes.Passes | None = None, known: Evaluation | None = None
) -> Evaluation:
    """Evaluate the untrained encoder, the trained one and, for the scores, raw pixels.

    Geometry and similarities are those of the projections that the loss compares, with running statistics, on two
    random views of each image from `views.EVALUATION_EPOCH`, which training never uses.

    Args:
      job: the run.
      state: after the last step.
      encode: the passes of the run, if it has made them.
      known: the evaluation of a run that differs in its training alone; what they share is taken from it.
    """
    encode = passes.make(job) if encode is None else encode
    states = {UNTRAINED: job.initial, TRAINED: state} if known is None else {TRAINED: state}
    encoders = {name: passes.place(each) for name, each in states.items()}
    scores = _score(job, encode, encoders, known)
    some = batches.sample(len(job.train), MAX_TRAINING_PAIRS, seed=job.config.seed)
    geometry = {} if known is None else dict(known.geometry)
    similarity = {} if known is None else dict(known.similarity)
    whole = {} if known is None else dict(known.whole)
    total = min(len(job.test), MAX_TEST_IMAGES) + len(job.train)
    for name, encoder in encoders.items():
        project = passes.bind(encoder, encode.project)
        with _count(f"Measuring the embeddings of the {name}", total) as counter:
            embed = functools.partial(passes.embed_source, project, config=job.config, watch=counter.watch)
            geometry[name] = evaluation.geometry(*embed(job.test, MAX_TEST_IMAGES))
            u, v = embed(job.train, len(job.train))
        similarity[name] = metrics.to_host(_describe(u[some], v[some], num_bins=job.config.log.num_bins))
        whole[name] = _measure_whole(u, v)
    near = _find_neighbours(job, passes.bind(encoders[TRAINED], encode.features)) if job.config.log.pictures else None
    return Evaluation(scores, geometry, similarity, whole, near)


def _find_neighbours(job: Job, features: Callable[..., jax.Array]) -> neighbours.Neighbours:
    with _count("Finding nearest neighbours", neighbours.num_images(job.test, job.train)) as counter:
        return neighbours.find(features, job.test, job.train, config=job.config, watch=counter.watch)


_describe = jax.jit(metrics.similarity_distribution, static_argnames="num_bins")  # compiled once in a process


def _count(what: str, total: int) -> Counter:
    return Counter(what, total, begins=True, least_seconds=SECONDS_BETWEEN_LINES)


def _measure_whole(u: np.ndarray, v: np.ndarray) -> evaluation.Similarities:
    negatives = jax.jit(metrics.negative_moments)(u, v)
    positive = np.einsum("nd,nd->n", u, v).mean(dtype=np.float64)
    return evaluation.Similarities(len(u), positive.item(), float(negatives.mean), float(negatives.variance))


def is_scored(job: Job) -> bool:
    """Whether there are labels, which the scores need."""
    return sources.labels_of(job.bank) is not None and sources.labels_of(job.test) is not None


def _score(
    job: Job, encode: passes.Passes, encoders: dict[str, TrainState], known: Evaluation | None
) -> dict[str, evaluation.Scores]:
    if not is_scored(job):
        print(f"Skipping the scores: {NO_LABELS}", file=sys.stderr)
        return {}
    representations: dict[str, Callable[..., jax.Array]] = (
        {"raw pixels": evaluation.raw_pixels}
        if known is None and scores_raw_pixels(job.config, job.bank, job.test)
        else {}
    )
    representations |= {name: passes.bind(encoder, encode.features) for name, encoder in encoders.items()}
    scores = {} if known is None else dict(known.scores)
    for name, fn in representations.items():
        with _count(f"Evaluating {name}", len(job.bank) + len(job.test)) as counter:
            size = job.config.evaluation.batch_size
            train, test = (counter.watch(batches.sequential(s, size)) for s in (job.bank, job.test))
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
    return make_settings(job.config, job.bank)


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
    scores = evaluation.format_scores(found.scores, settings(job)) if found.scores else f"No scores: {NO_LABELS}"
    return "\n\n".join([scores, evaluation.format_geometry(found.geometry), similarities])


def _similarities(row: Mapping[str, Any]) -> evaluation.Similarities:
    names = ("positive_count", "positive_mean", "cross_view_mean", "cross_view_variance")
    return evaluation.Similarities(*(row[name] for name in names))


def _optimum(job: Job) -> dict[str, float]:
    return rows.compute_optimum(num_instances=len(job.train), contrast_size=job.contrast_size)
