"""Several runs side by side: every score, its mean over the runs and each run's own; and what became of each encoder.

    python -m experiments.compare runs/digits-0 runs/digits-1 runs/digits-2

The second table has a row for each run, by the name of its workdir: the scores of its trained encoder, and the
similarities over the training set, where the variance of the negatives is what VRNS and the estimators of small batches
are about.
"""

import json
import statistics
import sys
from pathlib import Path

COLUMNS = {"linear_probe": "linear probe", "knn": "k-NN", "few_labels": "few labels"}


def table(summaries: list[dict]) -> str:
    """The scores in per cent, as a Markdown table."""
    lines = ["| representation | " + " | ".join(COLUMNS.values()) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for name in summaries[0]["evaluation"]:
        cells = []
        for column in COLUMNS:
            values = [100 * summary["evaluation"][name][column] for summary in summaries]
            each = ", ".join(f"{value:.1f}" for value in values)
            cells.append(f"{statistics.mean(values):.1f} ({each})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def each_run(summaries: dict[str, dict]) -> str:
    """The trained encoder of every run as a Markdown table: its scores in per cent, and its similarities."""
    columns = [*COLUMNS.values(), "s_pos mean", "s_neg mean (cross-view)", "s_neg variance (cross-view)"]
    lines = [f"| run | m | {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) + 1) + "|"]
    for name, summary in summaries.items():
        scores = summary["evaluation"]["trained encoder"]
        kinds = summary["training_set_similarity"]["trained encoder"]
        negative = kinds["cross_view"]
        cells = [f"{100 * scores[column]:.1f}" for column in COLUMNS]
        cells += [f"{kinds['positive']['mean']:.4f}", f"{negative['mean']:.4f}", f"{negative['variance']:.3g}"]
        lines.append(f"| {name} | {summary['contrast_size']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    paths = [Path(argument) / "summary.json" for argument in argv]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        wanted = f"no such file: {', '.join(missing)}" if missing else "the workdirs of finished runs are wanted"
        print(f"error: {wanted}", file=sys.stderr)
        return 2
    summaries = [json.loads(path.read_text()) for path in paths]
    print(table(summaries), end="\n\n")
    print(each_run({path.parent.name: summary for path, summary in zip(paths, summaries, strict=True)}))
    seconds = ", ".join(f"{summary['seconds']:.0f}" for summary in summaries)
    device = summaries[0]["environment"]
    print(f"\nSeconds: {seconds}; {device['devices']} x {device['device']}, {device['cpus']} CPUs.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
