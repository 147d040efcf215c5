"""An analysis of embeddings as one JSON object and as Markdown tables."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import metrics
from contrastive_jax.jobs.embeddings import Pairs
from contrastive_jax.jobs.machine import files

KINDS = ("positive", "cross_view", "within_view")
_TITLES = {"positive": "positive", "cross_view": "cross-view negative", "within_view": "within-view negative"}
_QUANTILES = (0, 25, 50, 75, 100)
_MAX_ROWS = 100  # of each kind of fault, in the JSON
_MAX_NAMED = 5  # in the table
_MAX_CLASSES = 10  # at either end


def summarise(
    analysis: metrics.Analysis, pairs: Pairs, *, contrast_size: int | None, names: tuple[str, str], num_hardest: int
) -> dict[str, Any]:
    """All numbers of an analysis as what JSON holds; a number that is not finite is None.

    Args:
      analysis: from `metrics.analyze`.
      pairs: what was analysed, for labels, ids and the rows of the file.
      contrast_size: m of Theorem 5.5, or None.
      names: what the two sets are called.
      num_hardest: how many of the hardest negatives are listed.
    """
    sampling = analysis.sampling
    return _plain(
        {
            "rows": analysis.num_rows,
            "kept": analysis.num_kept,
            "without_partner": pairs.alone,
            "instances": analysis.num_instances,
            "dimensions": analysis.dimensions,
            "identical_pairs": analysis.identical_pairs,
            "sampling": None if sampling is None else sampling._asdict(),
            "edges": metrics.similarity_edges(analysis.num_bins),
            "similarities": {kind: _summarise_kind(getattr(analysis, kind)) for kind in KINDS},
            "alignment": analysis.alignment,
            "gap": analysis.gap.distance,
            "retrieval": analysis.retrieval._asdict(),
            "views": {
                name: _summarise_view(view, rows)
                for name, view, rows in zip(names, (analysis.u, analysis.v), pairs.rows or (None, None), strict=True)
            },
            "optima": [
                row._asdict() for row in metrics.compare_with_optima(analysis, contrast_size=contrast_size, names=names)
            ],
            "hardest_negatives": _list_hardest(analysis, pairs, num_hardest),
        }
    )


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if isinstance(x, np.ndarray | np.generic):
        return _plain(x.tolist())
    if isinstance(x, bytes):
        return x.decode(errors="replace")
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _summarise_kind(kind: metrics.KindOfPair) -> dict[str, Any]:
    return {name: value for name, value in kind._asdict().items() if name != "histogram"} | kind.histogram._asdict()


def _summarise_view(view: metrics.View, rows: np.ndarray | None) -> dict[str, Any]:
    report, norms = view.report, view.report.norms[np.isfinite(view.report.norms)]
    classes = view.classes
    return {
        **{
            name: {"number": len(found), "first": _in_file(found[:_MAX_ROWS], rows)}
            for name, found in report._asdict().items()
            if name != "norms"
        },
        "norms": dict(
            zip(("least", "25%", "median", "75%", "greatest"), np.percentile(norms, _QUANTILES), strict=True)
        ),
        "mean_length": view.mean_length,
        "uniformity": view.uniformity._asdict(),
        "wasserstein_uniformity": view.wasserstein_uniformity._asdict(),
        "effective_rank": view.effective_rank,
        "rank": view.rank,
        "spectrum": view.spectrum,
        "classes": None if classes is None else classes._asdict() | {"share_between": classes.share_between},
    }


def _in_file(indices: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    return indices if rows is None else rows[indices]


def _list_hardest(analysis: metrics.Analysis, pairs: Pairs, number: int) -> list[dict[str, Any]]:
    """The anchors with the most similar negatives, the most similar first."""
    hardest = analysis.hardest
    order = np.argsort(-hardest.similarity, kind="stable")[:number]
    listed = []
    for k in order[hardest.negative[order] >= 0]:
        both = np.array([hardest.anchor[k], hardest.negative[k]])
        of_file = both if pairs.rows is None else [rows[j] for rows, j in zip(pairs.rows, both, strict=True)]
        row: dict[str, Any] = {"rows": of_file}
        if pairs.ids is not None and pairs.ids is not pairs.labels:
            row["ids"] = pairs.ids[both]
        if pairs.labels is not None:
            row["labels"] = pairs.labels[both]
        listed.append(row | {"similarity": hardest.similarity[k], "positive": hardest.positive[k]})
    return listed


def format_tables(summary: dict[str, Any]) -> str:
    """The summary as Markdown: what was given, the similarities, the sets, the optima, the hardest negatives."""
    sections = {
        "What was given": _format_given(summary),
        "Similarities": _format_similarities(summary),
        "Each set": _format_views(summary),
        "Beside the optima": _format_optima(summary),
        "Hardest negatives": _format_hardest(summary),
        "Variance within the classes": _format_classes(summary),
    }
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows])


def _number(x: float | None, error: float = 0.0) -> str:
    if x is None:
        return ""
    return f"{x:.4g}" if not error else f"{x:.4g} ± {error:.1g}"


def _format_given(summary: dict[str, Any]) -> str:
    views, sampling = summary["views"], summary["sampling"]
    lines = [
        f"{summary['rows']:,} pairs of {summary['dimensions']} dimensions, {summary['kept']:,} of them usable, of "
        f"{summary['instances']:,} instances; {summary['identical_pairs']:,} pairs of two equal directions."
    ]
    if summary["without_partner"]:
        lines.append(f"{summary['without_partner']:,} rows left out: no other row has their label.")
    if sampling:
        lines.append(
            "Histograms, uniformities, least and greatest similarity of negatives: all pairs within "
            f"{sampling['num_blocks']} random blocks of {sampling['block_rows']:,} rows, ± the standard error. "
            "Hardest negatives: of "
            f"{sampling['num_anchors']:,} random anchors, among all rows. Everything else: of all rows, exact."
        )
    faults = {"not_finite": "NaN or infinity", "zero": "zero", "repeated": "repeats of an earlier row"}
    rows = [[text, *(_name_rows(view[fault]) for view in views.values())] for fault, text in faults.items()]
    norms = [["norms: least, median, greatest"]]
    norms[0] += [
        ", ".join(_number(view["norms"][q]) for q in ("least", "median", "greatest")) for view in views.values()
    ]
    return "\n".join(lines) + "\n\n" + _table(["rows", *views], rows + norms)


def _name_rows(fault: dict[str, Any]) -> str:
    if not fault["number"]:
        return "0"
    named = ", ".join(
        "=".join(map(str, row)) if isinstance(row, list) else str(row) for row in fault["first"][:_MAX_NAMED]
    )
    return f"{fault['number']:,} ({named}{', ...' if fault['number'] > _MAX_NAMED else ''})"


def _format_similarities(summary: dict[str, Any]) -> str:
    rows = [
        [_TITLES[kind], f"{x['number']:,}", *(_number(x[name]) for name in ("mean", "variance", "least", "greatest"))]
        for kind, x in summary["similarities"].items()
    ]
    retrieval = summary["retrieval"]
    return (
        _table(["pairs", "number", "mean", "variance", "least", "greatest"], rows)
        + f"\n\nAlignment {_number(summary['alignment'])}; gap of the means {_number(summary['gap'])}; "
        f"{_number(100 * retrieval['value'], 100 * retrieval['standard_error'])}% of the anchors have a positive that "
        "is more similar than every negative."
    )


def _format_views(summary: dict[str, Any]) -> str:
    views = summary["views"].values()
    rows = [
        ["length of the mean", *(_number(view["mean_length"]) for view in views)],
        ["uniformity", *(_number(*view["uniformity"].values()) for view in views)],
        ["Wasserstein uniformity", *(_number(*view["wasserstein_uniformity"].values()) for view in views)],
        ["effective rank", *(_number(view["effective_rank"]) for view in views)],
        ["rank", *(str(view["rank"]) for view in views)],
    ]
    if all(view["classes"] for view in views):
        rows.append(["share of the variance between classes", *(_number(v["classes"]["share_between"]) for v in views)])
    return _table(["", *summary["views"]], rows)


def _format_optima(summary: dict[str, Any]) -> str:
    rows = [
        [
            row["quantity"],
            _number(row["measured"], row["standard_error"]),
            " to ".join(dict.fromkeys(map(_number, row["theory"]))),
            _number(row["distance"]),
            row["reference"],
        ]
        for row in summary["optima"]
    ]
    return _table(["quantity", "measured", "theory", "distance", "where"], rows)


def _format_hardest(summary: dict[str, Any]) -> str:
    rows = []
    for row in summary["hardest_negatives"]:
        cells = [", ".join(map(str, row[name])) for name in ("rows", "ids", "labels") if name in row]
        rows.append([*cells, f"{row['similarity']:.4f}", f"{row['positive']:.4f}"])
    if not rows:
        return ""
    columns = [name for name in ("rows", "ids", "labels") if name in summary["hardest_negatives"][0]]
    return _table([*columns, "similarity", "of the anchor's positive"], rows)


def _format_classes(summary: dict[str, Any]) -> str:
    views = list(summary["views"].values())
    if not all(view["classes"] for view in views):
        return ""
    classes = [view["classes"] for view in views]
    order = np.argsort(classes[0]["within"], kind="stable")
    shown = order if len(order) <= 2 * _MAX_CLASSES else np.concatenate([order[:_MAX_CLASSES], order[-_MAX_CLASSES:]])
    rows = [
        [
            str(classes[0]["classes"][k]),
            f"{classes[0]['number'][k]:,}",
            *(_number(each["within"][k]) for each in classes),
        ]
        for k in shown
    ]
    cut = f"\n\nThe {_MAX_CLASSES} narrowest and the {_MAX_CLASSES} widest of {len(order):,}." * (
        len(shown) < len(order)
    )
    return _table(["class", "rows", *summary["views"]], rows) + cut


def save(folder: Path, summary: dict[str, Any]) -> None:
    """Write `analysis.json` and `analysis.md` into a folder, each atomically."""
    for name, text in (
        ("analysis.json", json.dumps(summary, allow_nan=False) + "\n"),
        ("analysis.md", format_tables(summary)),
    ):
        with files.replace_atomically(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
