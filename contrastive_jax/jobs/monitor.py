"""What is measured of the encoder while it trains: a few numbers of a fixed sample, every few epochs."""

import math
from typing import Any

import numpy as np

from contrastive_jax import evaluation
from contrastive_jax.data import sources
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import passes
from contrastive_jax.jobs.evaluate import is_scored, make_settings
from contrastive_jax.jobs.job import Job
from contrastive_jax.jobs.logs.rows import MONITORED
from contrastive_jax.training.state import TrainState

GEOMETRY = ("alignment", "uniformity", "wasserstein_uniformity", "effective_rank")
KNN = "knn"


def is_due(job: Job, taken: int) -> bool:
    """Whether the encoder is measured once so many steps are taken: at the end of every `evaluation.every` epochs."""
    every = job.config.evaluation.every
    return every is not None and taken % (every * job.order.steps_per_epoch) == 0


def measure(job: Job, encode: passes.Passes, state: TrainState) -> dict[str, float]:
    """Measure the encoder on samples of at most `evaluation.subset` images, by the run's seed.

    - `evaluation_knn`: k-NN accuracy on the features of test images, from those of labelled training images; left out
      where there are no labels.
    - `evaluation_alignment`, `evaluation_uniformity`, `evaluation_wasserstein_uniformity`, `evaluation_effective_rank`:
      of the projections of two views of test images, see `evaluation.geometry`.

    One device measures, so that the numbers do not depend on how many train.

    Args:
      job: the run.
      encode: its passes.
      state: after a step.

    Returns:
      The numbers by name; NaN for all of them where embeddings are not finite.
    """
    encoder, names = passes.place(state), ([KNN] if is_scored(job) else []) + list(GEOMETRY)
    try:
        found = _measure(job, encode, encoder)
    except UsageError:  # not finite: the step's own numbers say so, or the evaluation at the end
        found = dict.fromkeys(names, math.nan)
    return {f"{MONITORED}{name}": found[name] for name in names}


def _measure(job: Job, encode: passes.Passes, encoder: TrainState) -> dict[str, Any]:
    config, most = job.config, job.config.evaluation.subset
    u, v = passes.embed_source(passes.bind(encoder, encode.project), job.test, most, config=config)
    found: dict[str, Any] = evaluation.geometry(u, v)._asdict()
    if not is_scored(job):
        return found
    data: list[np.ndarray] = []
    for source in (job.bank, job.test):
        features, ids = passes.encode_sample(passes.bind(encoder, encode.features), source, most, config=config)
        labels = sources.labels_of(source)
        assert labels is not None
        data += [features, labels[ids]]
    settings = make_settings(config, job.bank)
    k, temperature = settings.knn_neighbours, settings.knn_temperature
    return found | {KNN: evaluation.knn(*data, num_classes=settings.num_classes, k=k, temperature=temperature)}
