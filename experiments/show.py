"""The pictures and tables of a run as far as it has come.

    python -m experiments.show runs/digits

The run may be going on, interrupted or finished; its own files are only read. The tables are printed, and written with
the picture to `show` in the workdir, or to --out.
"""

import argparse
from collections.abc import Sequence

from experiments import check_extra, program

check_extra("flax", "orbax", "matplotlib", extra="train", what="experiments.show")


def main(arguments: Sequence[str]) -> None:
    """Run a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.show",
        description="The pictures and tables of a run as far as it has come.",
        allow_abbrev=False,
    )
    parser.add_argument("workdir", help="the folder of the run, which may be going on")
    parser.add_argument("--out", help="the folder to write to (WORKDIR/show)")
    options = parser.parse_args(arguments)

    from pathlib import Path

    from contrastive_jax.jobs import show

    print(show.show(options.workdir, options.out))
    out = Path(options.workdir) / show.FOLDER if options.out is None else options.out
    print(f"\nThe picture is {Path(out) / show.PICTURE}.")


if __name__ == "__main__":
    program.run(main)
