"""Make every table and figure of the papers at one scale, one after the other.

python -m experiments.papers [--scale=minutes] [--out=runs/papers] [--workers=1] [--list]
"""

import argparse
import time
from collections.abc import Sequence

from experiments.papers import (
    estimators,
    koromilas_figure3,
    koromilas_properties,
    lee_figure3,
    lee_figure4,
    lee_table1,
    lee_table4,
    paper,
    settings,
    vrns_weight,
)

TABLES = [
    module.PAPER_TABLE
    for module in (
        lee_table1,
        lee_figure4,
        lee_figure3,
        vrns_weight,
        lee_table4,
        koromilas_figure3,
        koromilas_properties,
        estimators,
    )
]


def main(argv: Sequence[str] | None = None) -> int:
    """Make all tables that the scale has; return the greatest exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.papers", allow_abbrev=False)
    paper.add_options(parser, settings.SCALES)
    options, start, statuses = parser.parse_args(argv), time.perf_counter(), [0]
    if options.list:
        print("\n".join(paper.list_commands(TABLES, options)))
        return 0
    for table in TABLES:
        if options.scale in table.scales:
            print(f"\n## {table.name}\n", flush=True)
            statuses.append(paper.make(table, options))
        if statuses[-1] > 128:  # a signal ends all
            return statuses[-1]
    print(f"\nAll tables: {time.perf_counter() - start:.0f} s")
    return max(statuses)


if __name__ == "__main__":
    paper.run_as_program(main)
