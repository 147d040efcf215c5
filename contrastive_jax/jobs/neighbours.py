"""Images and those whose features are nearest to theirs: what an encoder takes to be alike, to look at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import pairwise
from contrastive_jax.data import sources
from contrastive_jax.jobs import passes

NUM_QUERIES, NUM_NEIGHBOURS = 10, 5
MAX_CANDIDATES = 10_000  # a sample of so many is searched


class Neighbours(NamedTuple):
    """Query images and their nearest, from the nearest on.

    Attributes:
      queries: uint8 [q, h, w, c].
      nearest: uint8 [q, k, h, w, c].
      similarities: float32 [q, k], cosines of the features.
      same_class: bool [q, k], whether a neighbour is of the query's class; None where there are no labels.
    """

    queries: np.ndarray
    nearest: np.ndarray
    similarities: np.ndarray
    same_class: np.ndarray | None


def find(
    features: Callable[[np.ndarray], Any],
    queries: sources.Source,
    candidates: sources.Source,
    *,
    config: ConfigDict,
    watch: passes.Watch = lambda found: found,
) -> Neighbours:
    """The five images of `candidates` nearest to each of ten images of `queries`, by the cosine of their features.

    Args:
      features: images [b, h, w, c] -> [b, f].
      queries: ten of these, chosen by the run's seed, are shown; an image is no neighbour of its own.
      candidates: at most 10,000 of these, chosen by the run's seed, are searched.
      config: of the run.
      watch: shows how far the pass is.
    """
    bank, ids = passes.encode_sample(features, candidates, MAX_CANDIDATES, config=config, watch=watch)
    asked, query_ids = passes.encode_sample(features, queries, NUM_QUERIES, config=config, watch=watch)
    similarities = np.array(pairwise.similarities(*(pairwise.normalize(jnp.asarray(x)) for x in (asked, bank))))
    if queries is candidates:
        similarities[query_ids[:, None] == ids] = -np.inf
    count = min(NUM_NEIGHBOURS, len(ids) - (queries is candidates))
    found, places = (np.asarray(x) for x in jax.lax.top_k(similarities, count))
    chosen = ids[places]
    images = sources.take(candidates, chosen.reshape(-1))
    labels = [sources.labels_of(source) for source in (queries, candidates)]
    same = None
    if labels[0] is not None and labels[1] is not None:
        same = labels[0][query_ids][:, None] == labels[1][chosen]
    nearest = images.reshape(*chosen.shape, *images.shape[1:])
    return Neighbours(sources.take(queries, query_ids), nearest, found, same)


def num_images(queries: sources.Source, candidates: sources.Source) -> int:
    """How many images `find` encodes."""
    return min(len(queries), NUM_QUERIES) + min(len(candidates), MAX_CANDIDATES)
