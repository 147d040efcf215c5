"""Put pairs of embeddings under the lens: one picture, one table and one JSON, of embeddings from any framework.

    python -m experiments.analyze pairs.npz --out=runs/lens
    python -m experiments.analyze images.npy texts.npy --names=images,texts --out=runs/lens
    python -m experiments.analyze features.npz --pairs=labels --out=runs/lens

pairs.npz holds u and v [n, d]; u_i and v_i are a pair. Optional: labels [n], and ids [n], of which equal ones are never
each other's negatives. With --pairs=labels it holds x [n, d] and labels: each row is paired with another of its label.
The file that experiments.embed writes is one: --pairs=labels --array=features.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from contrastive_jax import metrics
from contrastive_jax.errors import UsageError
from experiments import check_extra, program

check_extra("flax", "matplotlib", "tqdm", extra="train", what="experiments.analyze")

_STAGES = {"rows": "Rows read", "pairs": "Blocks of pairs", "nearest": "Candidates for the hardest negative"}
_DEFAULT = metrics.Sampling()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].lower()}{message[1:]}; see --help.")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; raises UsageError."""
    parser = _Parser(
        prog="python -m experiments.analyze",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", help="one .npz, or two .npy, or one .npy with --pairs=labels")
    parser.add_argument(
        "--out", required=True, type=Path, help="the folder for analysis.png, analysis.md, analysis.json"
    )
    parser.add_argument("--pairs", choices=("rows", "labels"), default="rows", help="what makes a pair")
    parser.add_argument("--array", default="x", help="the array of an .npz for --pairs=labels (%(default)s)")
    parser.add_argument("--labels", help="a .npy file of labels")
    parser.add_argument("--ids", help="a .npy file of instance ids")
    parser.add_argument("--names", default="u,v", help="what the two sets are called (%(default)s)")
    parser.add_argument("--contrast_size", type=int, help="how many instances training compared with each other")
    parser.add_argument("--hardest", type=int, default=20, help="how many hardest negatives are listed (%(default)s)")
    parser.add_argument("--num_bins", type=int, default=200, help="of the histograms (%(default)s)")
    for name, text in {
        "exact_rows": "up to so many rows all pairs are formed",
        "num_blocks": "beyond: random blocks",
        "block_rows": "rows of a block",
        "num_anchors": "beyond: anchors whose hardest negative is found",
        "seed": "of what is drawn at random",
    }.items():
        parser.add_argument(f"--{name}", type=int, default=getattr(_DEFAULT, name), help=f"{text} (%(default)s)")
    given = parser.parse_args(arguments)
    given.names = tuple(given.names.split(","))
    if len(set(given.names)) != 2 or len(given.names) != 2 or not all(given.names):
        raise UsageError(f"--names: expected two different names, as in images,texts, got {','.join(given.names)!r}.")
    if given.seed < 0 or given.hardest < 0:
        raise UsageError(f"expected --seed and --hardest of at least 0, got {given.seed} and {given.hardest}.")
    return given


def run(options: argparse.Namespace) -> str:
    """Read, analyse and write; return the tables."""
    from contrastive_jax.jobs import embeddings
    from contrastive_jax.jobs.logs import analysis, analysis_pictures, progress

    _check_folder(options.out)
    pairs = embeddings.read_pairs(
        options.files,
        pairs=options.pairs,
        array=options.array,
        labels=options.labels,
        ids=options.ids,
        seed=options.seed,
    )
    sampling = metrics.Sampling(**{name: getattr(options, name) for name in metrics.Sampling._fields})
    rows = pairs.u.shape[0] if pairs.u.shape else 0
    if options.contrast_size is not None and not 2 <= options.contrast_size <= rows:
        raise UsageError(f"--contrast_size: expected 2 to {rows}, the number of pairs, got {options.contrast_size}.")
    with progress.StageProgress(_STAGES) as shown:
        found = metrics.analyze(
            pairs.u,
            pairs.v,
            ids=pairs.ids,
            labels=pairs.labels,
            num_bins=options.num_bins,
            sampling=sampling,
            on_progress=shown,
        )
    summary = analysis.summarise(
        found, pairs, contrast_size=options.contrast_size, names=options.names, num_hardest=options.hardest
    )
    try:
        analysis.save(options.out, summary)
        title = (
            f"{' '.join(Path(file).name for file in options.files)}: {found.num_kept:,} pairs, d = {found.dimensions}"
        )
        analysis_pictures.save_picture(options.out / "analysis.png", found, names=options.names, title=title)
    except OSError as error:
        raise UsageError(
            f"--out={options.out}: expected a folder that can be written, got {error.strerror!r}."
        ) from error
    return analysis.format_tables(summary)


def _check_folder(out: Path) -> None:
    """Refuse, before the work, a folder that cannot be made or written."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"--out={out}: expected a folder that can be written, got {there}, which cannot.")


def main(arguments: Sequence[str]) -> None:
    """Run a command line."""
    options = parse(arguments)
    print(run(options))
    print(f"Picture, table and numbers are in {options.out}.")


if __name__ == "__main__":
    program.run(main)
