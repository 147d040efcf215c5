"""Several runs in one table: every score of every representation, its mean over the runs and each run's own.

python -m experiments.compare runs/digits-0 runs/digits-1 runs/digits-2
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


def main(argv: list[str]) -> int:
    paths = [Path(argument) / "summary.json" for argument in argv]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        wanted = f"no such file: {', '.join(missing)}" if missing else "the workdirs of finished runs are wanted"
        print(f"error: {wanted}", file=sys.stderr)
        return 2
    summaries = [json.loads(path.read_text()) for path in paths]
    print(table(summaries))
    seconds = ", ".join(f"{summary['seconds']:.0f}" for summary in summaries)
    device = summaries[0]["environment"]
    print(f"\nSeconds: {seconds}; {device['devices']} x {device['device']}, {device['cpus']} CPUs.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
