"""What a run's encoder has become, beside what it was: scores, and how its embeddings lie over whole data sets."""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import evaluation, metrics, models, pairwise
from contrastive_jax.data import batches, sources, views
from contrastive_jax.evaluation import report
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.training.step import TrainState

MAX_TEST_IMAGES = 10_000
MAX_TRAINING_PAIRS = 5_000  # Lee 2025, Table 1
UNTRAINED, TRAINED = "untrained encoder", "trained encoder"


class Evaluation(NamedTuple):
    """All that is found out about a run once its steps are taken, by representation."""

    scores: dict[str, report.Scores]
    geometry: dict[str, evaluation.Geometry]  # of the test set
    similarity: dict[str, metrics.SimilarityDistribution]  # of the training set


def evaluate(job: Job, state: TrainState) -> Evaluation:
    """Evaluate the untrained encoder, the trained one and, for the scores, raw pixels.

    The geometry and the similarities are those of the projections that the loss compares, with the running statistics,
    of two random views of each image that no epoch of training has shown: those of `views.EVALUATION_EPOCH`.
    """
    encoders = {UNTRAINED: job.initial, TRAINED: state}
    encoders = {
        name: jax.device_put(encoder._replace(opt_state=(), estimator={})) for name, encoder in encoders.items()
    }
    scores = _scores(job, encoders)
    print("Measuring the embeddings ...", file=sys.stderr)
    embed = _embedder(job)
    describe = jax.jit(functools.partial(metrics.similarity_distribution, num_bins=job.config.log.num_bins))
    return Evaluation(
        scores=scores,
        geometry={name: evaluation.geometry(*embed(x, job.test, MAX_TEST_IMAGES)) for name, x in encoders.items()},
        similarity={
            name: jax.device_get(describe(*embed(x, job.train, MAX_TRAINING_PAIRS))) for name, x in encoders.items()
        },
    )


def _scores(job: Job, encoders: dict[str, TrainState]) -> dict[str, report.Scores]:
    @jax.jit
    def features(encoder, images):
        plain = views.plain_view(images, config=job.program.view_config)
        return models.features(job.program.graphdef, encoder.params.model, encoder.batch_stats, plain)

    representations: dict[str, Callable[..., jax.Array]] = (
        {"raw pixels": evaluation.raw_pixels} if job.config.evaluation.raw_pixels else {}
    )
    representations |= {name: functools.partial(features, encoder) for name, encoder in encoders.items()}
    scores = {}
    for name, fn in representations.items():
        print(f"Evaluating {name} ...", file=sys.stderr)
        train, test = (batches.sequential(s, job.config.evaluation.batch_size) for s in (job.train, job.test))
        scores[name] = report.evaluate(fn, train, test, settings(job))
    return scores


def settings(job: Job) -> report.Settings:
    """How the run's representations are evaluated."""
    e = job.config.evaluation
    return report.Settings(
        num_classes=job.train.num_classes,
        probe_epochs=e.probe_epochs,
        probe_learning_rate=e.probe_learning_rate,
        knn_neighbours=min(e.knn_neighbours, len(job.train)),
        knn_temperature=e.knn_temperature,
        labels_per_class=e.labels_per_class,
        draws=e.draws,
        seed=job.config.seed,
    )


def _embedder(job: Job) -> Callable[[TrainState, sources.Source, int], np.ndarray]:
    """A function of (encoder, source, most): the unit-norm embeddings [2, n, d] of two views of at most so many images.

    Those of a larger source are chosen by the run's seed.
    """
    program = job.program

    @jax.jit
    def project(encoder, images, ids):
        pair = views.random_views(
            images, ids, seed=program.seed, epoch=views.EVALUATION_EPOCH, config=program.view_config
        )
        images = pair.reshape(-1, *pair.shape[2:])
        projections, _ = models.apply(program.graphdef, encoder.params.model, encoder.batch_stats, images, train=False)
        return jnp.stack(jnp.split(pairwise.normalize(projections), 2))

    def embed(encoder: TrainState, source: sources.Source, most: int) -> np.ndarray:
        chosen = batches.sample(len(source), most, seed=program.seed)
        parts = [
            np.asarray(project(encoder, batch["image"], batch["id"]))[:, batch["mask"]]
            for batch in batches.sequential(source, job.config.evaluation.batch_size, indices=chosen)
        ]
        return np.concatenate(parts, axis=1)

    return embed


def summary(job: Job, found: Evaluation) -> dict[str, Any]:
    """What was found out, for `summary.json`."""
    return {
        "evaluation": {name: row._asdict() for name, row in found.scores.items()},
        "geometry": {name: row._asdict() for name, row in found.geometry.items()},
        "training_set_similarity": {
            "pairs": int(found.similarity[TRAINED].positive.count),
            **{name: logs.moments(distribution) for name, distribution in found.similarity.items()},
            **_optimum(job),
        },
    }


def tables(job: Job, found: Evaluation, last_row: dict[str, Any]) -> str:
    """What was found out as three Markdown tables; the last shows the last step's similarities too, where logged."""
    rows = {}
    if "positive_mean" in last_row:
        rows["in batch, last step"] = last_row
    for name, label in ((UNTRAINED, "training set, untrained"), (TRAINED, "training set, trained")):
        rows[label] = logs.flat_moments(found.similarity[name])
    optimum = _optimum(job)
    similarity = report.similarity_table(
        {
            name: report.Similarities(
                row["positive_count"], row["positive_mean"], row["cross_view_mean"], row["cross_view_variance"]
            )
            for name, row in rows.items()
        },
        negative_optimum=optimum["theory_full_batch_negative"],
        variance_bounds=(optimum["theory_variance_least"], optimum["theory_variance_greatest"]),
    )
    return "\n\n".join([report.table(found.scores, settings(job)), report.geometry_table(found.geometry), similarity])


def _optimum(job: Job) -> dict[str, float]:
    return logs.optimum_values(num_instances=len(job.train), contrast_size=job.program.contrast_size)
