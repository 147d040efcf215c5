"""Compare runs: each score as a mean over the runs with every run's own value, and the embeddings of each run.

    python -m experiments.compare runs/digits-0 runs/digits-1 runs/digits-2

The first table has a row for each representation; it is left out where a run has no scores, because its images have no
labels. The second has a row for each run, named after its workdir: the scores of the trained encoder, and its
similarities over the training set. VRNS and the small-batch estimators act on the variance of the negatives there.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = {"linear_probe": "linear probe", "knn": "k-NN", "few_labels": "few labels"}
_TRAINED = "trained encoder"
Summary = Mapping[str, Any]  # the content of a `summary.json`


def format_means(summaries: Sequence[Summary]) -> str:
    """The scores in per cent, as a Markdown table: their mean over the runs, and in brackets those of each run.

    A representation that only some of the runs have scored is left out.
    """
    lines = ["| representation | " + " | ".join(COLUMNS.values()) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for name in summaries[0]["evaluation"]:
        if all(name in summary["evaluation"] for summary in summaries):
            cells = [_format_mean([summary["evaluation"][name][column] for summary in summaries]) for column in COLUMNS]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _format_mean(scores: Sequence[float]) -> str:
    each = ", ".join(f"{100 * score:.1f}" for score in scores)
    return f"{100 * statistics.mean(scores):.1f} ({each})"


def format_runs(summaries: Mapping[str, Summary]) -> str:
    """The trained encoder of every run, as a Markdown table: its scores in per cent, if any, and its similarities."""
    scored = any(summary["evaluation"] for summary in summaries.values())
    columns = [*(COLUMNS.values() if scored else ()), "s_pos mean", "s_neg mean (cross-view)"]
    columns.append("s_neg variance (cross-view)")
    lines = [f"| run | m | {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) + 1) + "|"]
    for name, summary in summaries.items():
        scores = summary["evaluation"].get(_TRAINED, {})
        cells = [f"{100 * scores[column]:.1f}" if scores else "" for column in COLUMNS] if scored else []
        kinds = summary["training_set_similarity"][_TRAINED]
        negative = kinds["cross_view"]
        cells += [f"{kinds['positive']['mean']:.4f}", f"{negative['mean']:.4f}", f"{negative['variance']:.3g}"]
        lines.append(f"| {name} | {summary['contrast_size']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Print both tables."""
    paths = [Path(argument) / "summary.json" for argument in argv]
    missing = [str(path.parent) for path in paths if not path.is_file()]
    if missing or not paths:
        got = f"no summary.json in {', '.join(missing)}" if missing else "none"
        print(f"error: expected the workdirs of finished runs, got {got}.", file=sys.stderr)
        return 2
    summaries = [json.loads(path.read_text()) for path in paths]
    if all(summary["evaluation"] for summary in summaries):
        print(format_means(summaries), end="\n\n")
    print(format_runs({path.parent.name: summary for path, summary in zip(paths, summaries, strict=True)}))
    seconds = ", ".join(f"{summary['seconds']:.0f}" for summary in summaries)
    device = summaries[0]["environment"]
    print(f"\nSeconds: {seconds}; {device['devices']} x {device['device']}, {device['cpus']} CPUs.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
