"""Score the encoder of a run on another data set: probes, nearest neighbours and geometry, as at the end of the run.

    python -m experiments.evaluate --workdir=runs/cifar10 --source=tfds:cifar100

Any field of the evaluation can be set: --config.evaluation.knn_neighbours=20. The numbers are printed, and written to
evaluation-SOURCE.json in the workdir; evaluation-SOURCE.png shows nearest neighbours. Without labels there are no
scores.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contrastive_jax.errors import UsageError
from experiments import check_extra, program

if TYPE_CHECKING:
    from ml_collections import ConfigDict

check_extra("flax", "orbax", "tqdm", extra="train", what="experiments.evaluate")
_OVERRIDE = "--config."


def main(arguments: Sequence[str]) -> None:
    """Run a command line."""
    parser = program.make_parser("evaluate", "Score the encoder of a run on another data set.")
    parser.add_argument("--source", required=True, help="the data set: folder:PATH, npz:PATH, tfds:NAME, ...")
    parser.add_argument("--out", help="the JSON to write (WORKDIR/evaluation-SOURCE.json)")
    parser.add_argument("--data_dir", help="where TensorFlow Datasets keeps its data")
    options, overrides = parser.parse_known_args(arguments)

    from contrastive_jax.jobs import loading, transfer

    encoder = loading.load(options.workdir, step=options.step, momentum=options.momentum)
    config = encoder.config.copy_and_resolve_references()
    override(config, overrides)
    found = transfer.transfer(encoder, options.source, config=config, data_dir=options.data_dir)
    print(transfer.format_tables(found))
    print(f"\n{transfer.save(found, encoder, options.source, options.out)} holds these numbers, of {encoder}.")


def override(config: "ConfigDict", arguments: Sequence[str]) -> None:
    """Set fields of the evaluation: `--config.evaluation.knn_neighbours=20`."""
    from contrastive_jax.jobs import config as config_lib
    from contrastive_jax.jobs import validation

    for argument in arguments:
        path, given, text = argument.removeprefix(_OVERRIDE).partition("=")
        if not argument.startswith(_OVERRIDE) or not given or not path.startswith("evaluation."):
            raise UsageError(f"{argument!r}: expected an option, or --config.evaluation.FIELD=VALUE; see --help.")
        config_lib.set_from_text(config, path, text)
    faults = [fault for path, fault in validation.field_faults(config) if path.startswith("evaluation.")]
    if faults:
        raise UsageError("\n".join(faults))


if __name__ == "__main__":
    program.run(main)
