"""Embed every image of a data set with the encoder of a run.

    python -m experiments.embed --workdir=runs/digits --source=folder:PATH --out=embeddings.npz

The file holds features, projections, names (of files, their paths below PATH), labels if there are any, and `about`. A
pass that was cut short goes on with the same command; its parts are in OUT.parts until the file is whole.
"""

from collections.abc import Sequence

from experiments import check_extra, program

check_extra("flax", "orbax", "tqdm", extra="train", what="experiments.embed")


def main(arguments: Sequence[str]) -> None:
    """Run a command line."""
    parser = program.make_parser("embed", "Embed every image of a data set with the encoder of a run.")
    parser.add_argument("--source", required=True, help="the data set: folder:PATH, npz:PATH, tfds:NAME, ...")
    parser.add_argument("--out", required=True, help="the .npz to write")
    parser.add_argument("--batch_size", type=int, help="images encoded at once (the run's evaluation.batch_size)")
    parser.add_argument("--data_dir", help="where TensorFlow Datasets keeps its data")
    options = parser.parse_args(arguments)

    from contrastive_jax.jobs import embed, loading

    encoder = loading.load(options.workdir, step=options.step, momentum=options.momentum, batch_size=options.batch_size)
    path = embed.embed(encoder, options.source, options.out, data_dir=options.data_dir)
    print(f"{path} holds the embeddings by {encoder}.")


if __name__ == "__main__":
    program.run(main)
