"""What the runs of every table share, at each scale, and the sweeps that several tables take their runs from."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.papers.paper import LOSS, SEED, SIZE, TEMPERATURE, WEIGHT, Sweep

SEEDS = (0, 1, 2)
SIZES = (32, 64, 128, 256, 512)
FEW_SIZES = (32, 256)  # of the digits, of which 512 leave too few steps
VRNS = 30.0  # the weight of Lee 2025's Table 1
TEMPERATURES = (0.07, 0.1, 0.25, 0.5, 1.0, 2.0)  # of their Figure 3
_QUIET: dict[str, Any] = {
    "evaluation.raw_pixels": False,
    "evaluation.every": "none",
    "log.pictures": False,
    "log.tensorboard_every": 1000,
}
DIGITS: dict[str, Any] = {
    **_QUIET,
    "model.name": "mlp",
    "model.kwargs.hidden": (128,),
    "epochs": 30,
    "optimizer.warmup_epochs": 3,
    "evaluation.probe_epochs": 300,
}
SMALL: dict[str, Any] = {
    **_QUIET,
    "model.name": "resnet10",
    "model.kwargs.width": 8,
    "epochs": 12,
    "optimizer.warmup_epochs": 2,
}
CIFAR10: dict[str, Any] = {
    "data.source": "experiments.papers.images:cifar10",
    "data.stored_size": 32,
    "data.image_size": 16,
    **SMALL,
}
FASHION: dict[str, Any] = {
    "data.source": "experiments.papers.images:fashion_mnist",
    "data.stored_size": 28,
    "data.image_size": 14,
    **SMALL,
}
SCALES = ("minutes", "cpu", "paper")


def digits(name: str, grid: Mapping[str, Sequence[Any]], **fields: Any) -> Sweep:
    """Runs of `minutes`: a small perceptron on the digits, as one program for each batch size and loss."""
    return Sweep(f"digits_{name}", "configs/digits.py", {**DIGITS, **fields}, grid, "vmap")


def cifar10(name: str, grid: Mapping[str, Sequence[Any]], **fields: Any) -> Sweep:
    """Runs of `cpu`: a narrow ResNet-10 on 10,000 images of CIFAR-10, in views of 16 pixels, for 12 epochs."""
    return Sweep(f"cifar10_{name}", "configs/cifar10.py", {**CIFAR10, **fields}, grid)


def fashion_mnist(name: str, grid: Mapping[str, Sequence[Any]], **fields: Any) -> Sweep:
    """Runs of `cpu`: the same encoder on 10,000 images of Fashion-MNIST, in views of 14 pixels."""
    return Sweep(f"fashion_mnist_{name}", "configs/fashion_mnist.py", {**FASHION, **fields}, grid)


def paper(preset: str, name: str, grid: Mapping[str, Sequence[Any]], **fields: Any) -> Sweep:
    """Runs of a paper's own protocol, for accelerators."""
    return Sweep(f"{preset}_{name}", f"configs/{preset}.py", {"evaluation.every": "none", **fields}, grid)


def by_size(losses: Sequence[str], sizes: Sequence[int] = SIZES) -> dict[str, Sequence[Any]]:
    """Losses against batch sizes, with and without VRNS."""
    return {LOSS: losses, SIZE: sizes, WEIGHT: (0, f"{VRNS:g}"), SEED: SEEDS}


AT_TWO_TENTHS = {TEMPERATURE: 0.2}
