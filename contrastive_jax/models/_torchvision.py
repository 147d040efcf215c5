"""The weights of a `ResNet` under torchvision's names, out and in."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from contrastive_jax.errors import UsageError
from contrastive_jax.models._calling import describe
from contrastive_jax.models._resnet import BottleneckBlock, ConvNorm, ResNet

_COUNT, _CLASSIFIER = "num_batches_tracked", "fc."
_SHOWN = 5  # names in a message
# The stages of torchvision's ResNets, by whether their blocks are bottlenecks.
_STAGES = {False: ((2, 2, 2, 2), (3, 4, 6, 3)), True: ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))}


def to_torchvision(encoder: nnx.Module) -> dict[str, np.ndarray]:
    """The weights of a `ResNet` as torchvision names and lays them out: a state dict without its classifier `fc`.

    With 3 channels, the plain stem and a width of 64 they are those of torchvision's `resnet18`, `resnet34` and
    `resnet50` with `fc = torch.nn.Identity()`, which then gives our features. Another stem, width or number of channels
    has the same names and other shapes; the small stem also has no max-pooling.

    Args:
      encoder: a `ResNet`.

    Returns:
      {name: float32 array}, kernels [outputs, inputs, height, width], running statistics included;
      `num_batches_tracked` is an int64 0, which PyTorch does not use with a fixed momentum.

    Raises:
      UsageError: `encoder` is no `ResNet`.

    Example:
      >>> encoder = models.ENCODERS["resnet18"]((32, 32, 3), stem="plain", rngs=nnx.Rngs(0))
      >>> arrays = to_torchvision(encoder)
      >>> len(arrays), arrays["conv1.weight"].shape, arrays["layer4.1.bn2.running_var"].shape
      (120, (64, 3, 7, 7), (512,))
    """
    arrays: dict[str, np.ndarray] = {}
    for name, variable in _list_variables(_check_resnet(encoder)):
        x = np.asarray(variable[...])
        arrays[name] = np.ascontiguousarray(x.transpose(3, 2, 0, 1)) if x.ndim == 4 else x
        if name.endswith("running_var"):
            arrays[name.replace("running_var", _COUNT)] = np.array(0, np.int64)
    return arrays


def load_torchvision(encoder: nnx.Module, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Set the weights of a `ResNet` to those of a state dict of torchvision.

    Args:
      encoder: a `ResNet`; changed in place, parameters and running statistics.
      arrays: {name: array}, as `to_torchvision` returns. The classifier `fc` may be there and is left out.

    Returns:
      The names that were left out.

    Raises:
      UsageError: `encoder` is no `ResNet`; names are missing or too many; or an array has another shape or dtype. Then
        nothing has changed.

    Example:
      >>> one, other = (models.ENCODERS["resnet10"]((8, 8, 1), width=4, rngs=nnx.Rngs(seed)) for seed in (0, 1))
      >>> load_torchvision(other, to_torchvision(one))
      []
      >>> images = jnp.ones((2, 8, 8, 1))
      >>> bool((one(images) == other(images)).all())
      True
    """
    variables = dict(_list_variables(_check_resnet(encoder)))
    found = {name: x for name, x in arrays.items() if name.rpartition(".")[2] != _COUNT}
    left_out = sorted(name for name in found if name.startswith(_CLASSIFIER))
    _check_names(variables.keys(), found.keys() - set(left_out))
    shapes = {name: _shape_of(variable) for name, variable in variables.items()}
    _check_arrays(shapes, found)
    for name, variable in variables.items():
        x = np.asarray(found[name])
        variable[...] = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x
    return left_out


def _check_resnet(encoder: nnx.Module) -> ResNet:
    if not isinstance(encoder, ResNet):
        raise UsageError(
            f"expected a ResNet of this package, whose weights torchvision has names for, got {describe(encoder)}."
        )
    return encoder


def _list_variables(encoder: ResNet) -> Iterator[tuple[str, nnx.Variable]]:
    """(torchvision's name, variable) of all parameters and running statistics, in torchvision's order."""
    yield from _of_layer(encoder.first, "conv1", "bn1")
    blocks = iter(encoder.blocks)
    for stage, size in enumerate(encoder.stage_sizes, start=1):
        for i in range(size):
            block = next(blocks)
            for k, layer in enumerate([*block.first, block.last], start=1):
                yield from _of_layer(layer, f"layer{stage}.{i}.conv{k}", f"layer{stage}.{i}.bn{k}")
            if block.shortcut is not None:
                name = f"layer{stage}.{i}.downsample"
                yield from _of_layer(block.shortcut, f"{name}.0", f"{name}.1")


def _of_layer(layer: ConvNorm, convolution: str, norm: str) -> Iterator[tuple[str, Any]]:
    yield f"{convolution}.weight", layer.conv.kernel
    yield f"{norm}.weight", layer.norm.scale
    yield f"{norm}.bias", layer.norm.bias
    yield f"{norm}.running_mean", layer.norm.mean
    yield f"{norm}.running_var", layer.norm.var


def _shape_of(variable: nnx.Variable) -> tuple[int, ...]:
    shape = tuple(variable[...].shape)
    return tuple(shape[axis] for axis in (3, 2, 0, 1)) if len(shape) == 4 else shape


def _check_names(expected: Collection[str], found: Collection[str]) -> None:
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    kinds = ((missing, "missing"), (unknown, "too many"))
    if missing or unknown:
        got = " and ".join(f"{len(names)} {what} ({_some(names)})" for names, what in kinds if names)
        raise UsageError(f"expected torchvision's names for this ResNet, got {got}. Give the file of the same network.")


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _check_arrays(shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray]) -> None:
    for name, shape in shapes.items():
        x = np.asarray(found[name])
        if x.shape != shape:
            raise UsageError(f"{name}: expected {list(shape)}, got {list(x.shape)}. {_advise(name, shape, x.shape)}")
        if x.dtype != np.float32:
            raise UsageError(f"{name}: expected float32, got {x.dtype}. Convert the weights to float32.")
        if not np.isfinite(x).all():
            raise UsageError(f"{name}: expected finite numbers, got some that are not. Take an undamaged file.")


def _advise(name: str, expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    """What to do about an array of another shape; the first convolution tells the stem and the channels."""
    if name == "conv1.weight" and len(found) == 4:
        if found[2:] != expected[2:] and found[2] in (3, 7):
            stem = "plain" if found[2] == 7 else "small"
            return f"The file has a first convolution of {found[2]}x{found[2]}: build the ResNet with stem={stem!r}."
        if found[1] != expected[1]:
            return f"The file is for images of {found[1]} channels: give such images."
        if found[0] != expected[0]:
            return f"The file has a width of {found[0]}: build the ResNet with width={found[0]}."
    return "Give the file of the same network."


def describe_difference(encoder: nnx.Module) -> str | None:
    """What to change in torchvision's class so that it takes the weights of a `ResNet`, in a line; None for nothing.

    Example:
      >>> describe_difference(models.ENCODERS["resnet18"]((32, 32, 3), stem="plain", rngs=nnx.Rngs(0))) is None
      True
    """
    resnet = _check_resnet(encoder)
    channels, width, bottleneck = resnet.channels, resnet.first.conv.out_features, _has_bottlenecks(resnet)
    changes = []
    if resnet.stage_sizes not in _STAGES[bottleneck]:
        block = "Bottleneck" if bottleneck else "BasicBlock"
        changes.append(f"build torchvision.models.resnet.ResNet({block}, {list(resnet.stage_sizes)})")
    if resnet.stem == "small":
        changes.append(f"set conv1 to Conv2d({channels}, {width}, 3, padding=1, bias=False) and maxpool to Identity()")
    elif channels != 3:
        changes.append(f"set conv1 to Conv2d({channels}, {width}, 7, stride=2, padding=3, bias=False)")
    if width != 64:
        changes.append(f"make all layers {width}/64 as wide, for which its classes have no argument")
    return "; ".join(changes) or None


def _has_bottlenecks(resnet: ResNet) -> bool:
    return isinstance(next(iter(resnet.blocks)), BottleneckBlock)
