"""The pictures and tables of a run as far as it has come, from its workdir alone, which is only read."""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import evaluation, metrics
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import evaluate
from contrastive_jax.jobs.loading import read_config, read_record
from contrastive_jax.jobs.logs import pictures, rows
from contrastive_jax.jobs.machine import files
from contrastive_jax.jobs.workdir import DATA

FOLDER, TABLE, PICTURE = "show", "table.md", "similarity.png"
_MAX_ROWS = 20  # of the table of what was measured


def show(workdir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> str:
    """Draw the picture and write the tables of a run that is going on, was interrupted, or is finished.

    It reads what the run has logged up to now, without the line that is being written, and changes no file of the run.
    Writes `similarity.png` and `table.md`.

    Args:
      workdir: the folder of the run.
      out: the folder to write to; by default `show` in the workdir.

    Returns:
      The tables, Markdown.

    Raises:
      UsageError: there is no run, it has not logged a step yet, or `out` is its workdir.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    out = workdir / FOLDER if out is None else Path(out)
    if out.resolve() == workdir.resolve():
        raise UsageError(f"--out={out}: expected another folder than the run's own, whose files stay as they are.")
    logged, counts = _read_logs(workdir, config)
    if not logged:
        raise UsageError(f"{workdir}: expected a run that has logged a step, got one that has not. Wait for it.")
    count, summary = _read_count(workdir), _read_summary(workdir)
    size = _find_contrast_size(config, logged[-1], count)
    optimum = rows.compute_optimum(num_instances=count, contrast_size=size)
    finished = summary is not None and summary["steps"] == len(logged)
    tables = _format(config, logged, count, summary if finished else None, optimum)
    out.mkdir(parents=True, exist_ok=True)
    with files.replace_atomically(out / TABLE) as temporary:
        temporary.write_text(f"{tables}\n", encoding="utf-8")
    pictures.save_similarity_picture(
        out / PICTURE,
        counts,
        logged,
        _read_training_set(workdir, summary) if finished and summary is not None else None,
        optimum=optimum,
        title=pictures.describe(config, contrast_size=size, num_instances=count),
    )
    return tables


def _read_logs(workdir: Path, config: ConfigDict) -> tuple[list[dict[str, Any]], np.ndarray | None]:
    """The whole rows that were logged, and their histograms, if any."""
    path, num_bins = workdir / rows.COUNTS, config.log.num_bins
    counts = None
    if config.log.distribution:
        # First the histograms, of which a step writes one after its row: there is a row for each of them.
        data = np.fromfile(path, np.uint64) if path.exists() else np.zeros(0, np.uint64)
        whole = len(data) // (len(rows.KINDS) * num_bins)
        counts = data[: whole * len(rows.KINDS) * num_bins].reshape(whole, len(rows.KINDS), num_bins)
    logged = rows.read_whole_rows(workdir / rows.ROWS)
    shared = len(logged) if counts is None else min(len(logged), len(counts))
    return logged[:shared], None if counts is None else counts[:shared]


def _read_count(workdir: Path) -> int:
    try:
        return int(json.loads(read_record(workdir, DATA))["train"]["count"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{workdir / DATA}: expected the JSON that a run wrote, got other text ({error!r}).") from None


def _read_summary(workdir: Path) -> dict[str, Any] | None:
    try:
        return json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _find_contrast_size(config: ConfigDict, row: Mapping[str, Any], count: int) -> int:
    """Instances compared with each other: logged beside the distribution; else as on one device."""
    optimum = row.get("theory_contrast_set_negative")
    if optimum:
        return round(1 - 1 / optimum)
    return config_lib.contrast_size(config, num_instances=count, num_devices=1)


def _read_training_set(workdir: Path, summary: Mapping[str, Any]) -> list[metrics.SimilarityDistribution] | None:
    """The distributions over the training set that the evaluation of a finished run left."""
    moments = summary["training_set_similarity"]
    try:
        with np.load(workdir / "similarity.npz", allow_pickle=False) as arrays:
            counts = {kind: arrays[f"training_set_{kind}"] for kind in rows.KINDS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return [
        metrics.SimilarityDistribution(
            **{kind: metrics.PairSimilarities(counts=counts[kind][k], **moments[name][kind]) for kind in rows.KINDS}
        )
        for k, name in enumerate((evaluate.UNTRAINED, evaluate.TRAINED))
    ]


def _format(
    config: ConfigDict,
    logged: Sequence[Mapping[str, Any]],
    count: int,
    summary: Mapping[str, Any] | None,
    optimum: Mapping[str, float],
) -> str:
    last = logged[-1]
    steps = config.epochs * (count // max(config.batch_size, _find_contrast_size(config, last, count)))
    state = "finished" if summary is not None else "not evaluated yet"
    done = f"Step {last['step'] + 1} of {steps}, epoch {last['epoch'] + 1} of {config.epochs}; {state}."
    parts = [done, _format_steps(logged[0], last)]
    measured = [row for row in logged if any(name.startswith(rows.MONITORED) for name in row)]
    if measured:
        parts.append(_format_measured(measured))
    if summary is not None:
        parts += _format_summary(config, count, summary, optimum)
    return "\n\n".join(parts)


def _format_steps(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """The numbers that every step logs, at the first and the last one."""
    left_out = ("step", "epoch"), ("theory_", rows.MONITORED)
    names = [name for name, x in first.items() if name not in left_out[0] and not name.startswith(left_out[1])]
    names = [name for name in names if all(isinstance(row.get(name), int | float) for row in (first, last))]
    lines = [f"| | step {first['step'] + 1} | step {last['step'] + 1} |", "|---|---:|---:|"]
    return "\n".join([*lines, *(f"| {name} | {first[name]:.6g} | {last[name]:.6g} |" for name in names)])


def _format_measured(measured: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in measured[-1] if name.startswith(rows.MONITORED)]
    chosen = sorted({round(x) for x in np.linspace(0, len(measured) - 1, min(len(measured), _MAX_ROWS))})
    heads = (name.removeprefix(rows.MONITORED).replace("_", " ") for name in names)
    lines = [f"| epoch | {' | '.join(heads)} |", "|---" + "|---:" * len(names) + "|"]
    for row in (measured[k] for k in chosen):
        lines.append(f"| {row['epoch'] + 1} | " + " | ".join(f"{row[name]:.4f}" for name in names) + " |")
    return "\n".join(lines)


def _format_summary(
    config: ConfigDict, count: int, summary: Mapping[str, Any], optimum: Mapping[str, float]
) -> list[str]:
    found = []
    if summary["evaluation"]:
        e = config.evaluation
        settings = evaluation.Settings(
            num_classes=0,
            knn_neighbours=min(e.knn_neighbours, count),
            labels_per_class=e.labels_per_class,
            draws=e.draws,
        )
        scores = {name: evaluation.Scores(**row) for name, row in summary["evaluation"].items()}
        found.append(evaluation.format_scores(scores, settings))
    found.append(
        evaluation.format_geometry({name: evaluation.Geometry(**row) for name, row in summary["geometry"].items()})
    )
    whole = {f"training set, {name}": row for name, row in summary["whole_training_set_similarity"].items()}
    found.append(
        evaluation.format_similarities(
            {name: evaluation.Similarities(**row) for name, row in whole.items()},
            negative_optimum=optimum["theory_full_batch_negative"],
            variance_bounds=(optimum["theory_variance_least"], optimum["theory_variance_greatest"]),
        )
    )
    return found
