"""Score a trained encoder on another data set than its run's: probes, nearest neighbours and geometry."""

import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from contrastive_jax import evaluation
from contrastive_jax.data import batches, sources
from contrastive_jax.errors import SourceError, UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import evaluate, neighbours, passes
from contrastive_jax.jobs.encoder import Encoder
from contrastive_jax.jobs.loading import load_untrained
from contrastive_jax.jobs.logs import neighbour_pictures, rows
from contrastive_jax.jobs.logs.counter import Counter
from contrastive_jax.jobs.machine import environment, files
from contrastive_jax.jobs.opening import check_class_sizes

NO_LABELS = "the images have no labels, which scores need."


class Transfer(NamedTuple):
    """The results on a data set, by representation."""

    scores: dict[str, evaluation.Scores]
    geometry: dict[str, evaluation.Geometry]  # of the test set
    settings: evaluation.Settings
    neighbours: neighbours.Neighbours  # test images and the training images nearest to them


def transfer(
    encoder: Encoder, source: str, *, config: ConfigDict | None = None, data_dir: str | os.PathLike[str] | None = None
) -> Transfer:
    """Score raw pixels, the encoder that the run began with and the trained one on a data set.

    As at the end of the run: linear probe, k-NN and a probe on few labels on the features of un-augmented images, if
    they have labels; the geometry of the projections of two random views of the test images.

    Args:
      encoder: of `load`.
      source: the data set, see `data.sources.load`; its images have the channels of the run's.
      config: the configuration of the run with other fields of `evaluation`; by default that of the run.
      data_dir: where TensorFlow Datasets keeps its data.

    Raises:
      UsageError: the data set cannot be read, has other channels or too few images of a class; or the module or the
        weights that the run began with cannot be made again.
    """
    config = encoder.config if config is None else config
    splits = _open(source, config, data_dir or config.data.directory)
    encoder.check_source(splits.train, f"--source={source}")
    labelled = _check_labels(splits, f"--source={source}", config)
    encoders = {evaluate.UNTRAINED: load_untrained(encoder), encoder.which: encoder}
    scores = _score(encoders, splits, config) if labelled else {}
    geometry = {name: _measure(each, splits.test, config, name) for name, each in encoders.items()}
    with _count("Finding nearest neighbours", neighbours.num_images(splits.test, splits.train)) as counter:
        near = neighbours.find(encoder.features, splits.test, splits.train, config=config, watch=counter.watch)
    return Transfer(scores, geometry, evaluate.make_settings(config, splits.train), near)


def _check_labels(splits: sources.Splits, source: str, config: ConfigDict) -> bool:
    """Whether there are labels to score; if so, check that there are enough of each class."""
    labels = sources.labels_of(splits.train)
    if labels is None or sources.labels_of(splits.test) is None:
        print(f"Skipping the scores: {NO_LABELS}", file=sys.stderr)
        return False
    check_class_sizes(labels, source, labels_per_class=config.evaluation.labels_per_class)
    return True


def _count(what: str, total: int) -> Counter:
    return Counter(what, total, begins=True, least_seconds=evaluate.SECONDS_BETWEEN_LINES)


def _score(encoders: dict[str, Encoder], splits: sources.Splits, config: ConfigDict) -> dict[str, evaluation.Scores]:
    settings = evaluate.make_settings(config, splits.train)
    representations: dict[str, Callable[..., Any]] = (
        {"raw pixels": evaluation.raw_pixels} if evaluate.scores_raw_pixels(config, *splits) else {}
    )
    representations |= {name: each.features for name, each in encoders.items()}
    scores = {}
    for name, features in representations.items():
        size, total = next(iter(encoders.values())).batch_size, sum(map(len, splits))
        with _count(f"Evaluating {name}", total) as counter:
            train, test = (counter.watch(batches.sequential(split, size)) for split in splits)
            scores[name] = evaluation.score(features, train, test, settings)
    return scores


def _open(source: str, config: ConfigDict, data_dir: str | os.PathLike[str] | None) -> sources.Splits:
    data = config.data
    try:
        return sources.load_splits(
            source,
            image_size=data.image_size,
            stored_size=data.stored_size,
            data_dir=data_dir,
            cache_bytes=data.cache_gib * 2**30,
        )
    except SourceError as error:
        raise UsageError(f"--source={source}: {error}") from None


def _measure(encoder: Encoder, test: sources.Source, config: ConfigDict, name: str) -> evaluation.Geometry:
    view_config = config_lib.view_config(config)
    project = jax.jit(functools.partial(passes.project_views, view_config=view_config, seed=config.seed))
    graphdef, params, state = encoder.functional

    def of_batch(images: Any, ids: Any) -> jax.Array:
        return project((graphdef, params, state), images, ids)

    most = evaluate.MAX_TEST_IMAGES
    with _count(f"Measuring the embeddings of the {name}", min(len(test), most)) as counter:
        return evaluation.geometry(*passes.embed_source(of_batch, test, most, config=config, watch=counter.watch))


def format_tables(found: Transfer) -> str:
    """The results as Markdown tables, as those of a run."""
    scores = evaluation.format_scores(found.scores, found.settings) if found.scores else f"No scores: {NO_LABELS}"
    return "\n\n".join([scores, evaluation.format_geometry(found.geometry)])


def save(found: Transfer, encoder: Encoder, source: str, out: str | os.PathLike[str] | None = None) -> Path:
    """Write the results as JSON and, beside it, a picture of nearest neighbours; return the path of the JSON.

    Args:
      found: of `transfer`.
      encoder: what was scored.
      source: on which data.
      out: the file; by default `evaluation-SOURCE.json` in the workdir of the run, replaced if it exists.
    """
    if out is None:
        name = re.sub(r"[^\w.-]+", "-", source).strip("-.")[-80:]
        out = encoder.workdir / f"evaluation-{name}.json"
    content = {
        "source": source,
        "encoder": {"which": encoder.which, "step": encoder.step, "digest": encoder.digest},
        "evaluation": {name: row._asdict() for name, row in found.scores.items()},
        "geometry": {name: row._asdict() for name, row in found.geometry.items()},
        "settings": found.settings._asdict(),
        "environment": environment.describe(),
    }
    with files.replace_atomically(out) as temporary:
        temporary.write_text(json.dumps(rows.replace_nonfinite(content), indent=2, allow_nan=False) + "\n")
    neighbour_pictures.save_neighbours_picture(Path(out).with_suffix(".png"), found.neighbours)
    return Path(out)
