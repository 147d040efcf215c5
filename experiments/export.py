"""Write the encoder of a run, a ResNet, as safetensors under torchvision's names, for PyTorch.

    python -m experiments.export --workdir=runs/imagenet100 --out=resnet18.safetensors

In PyTorch, whose features are then ours:

    model = torchvision.models.resnet18()
    model.fc = torch.nn.Identity()
    model.load_state_dict(safetensors.torch.load_file("resnet18.safetensors"))

With --identity the file has a classifier `fc` that returns the features, for resnet18(num_classes=512) as it is.
"""

from collections.abc import Sequence

from experiments import check_extra, program

check_extra("flax", "orbax", "safetensors", extra="train", what="experiments.export")


def main(arguments: Sequence[str]) -> None:
    """Run a command line."""
    parser = program.make_parser("export", "Write the encoder of a run under torchvision's names.")
    parser.add_argument("--out", required=True, help="the .safetensors to write")
    parser.add_argument("--identity", action="store_true", help="add a classifier fc that returns the features")
    options = parser.parse_args(arguments)

    from contrastive_jax.jobs import loading

    encoder = loading.load(options.workdir, step=options.step, momentum=options.momentum)
    difference = encoder.save_safetensors(options.out, identity=options.identity)
    data = encoder.config.data
    print(f"{options.out} holds {encoder}.")
    print(f"Its images: {data.image_size} pixels, in [0, 1], less mean {data.mean}, divided by std {data.std}.")
    if difference is not None:
        print(f"Before torchvision's class takes it: {difference}.")


if __name__ == "__main__":
    program.run(main)
