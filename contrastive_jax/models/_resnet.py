"""Residual networks for images, as in torchvision, in Flax NNX."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from contrastive_jax.models._checks import check_at_least_one, check_choice, check_dtype, check_images
from contrastive_jax.models._convolution import convolve
from contrastive_jax.models._initializers import he_normal_fan_out
from contrastive_jax.models._normalization import BatchNorm

Stem = Literal["small", "plain"]
Sizes = tuple[int, int, int, int]  # inputs, outputs, kernel and stride of a convolution


class ConvNorm(nnx.Module):
    """A convolution without bias, then batch normalisation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        dtype: DTypeLike,
        scale_init: nnx.Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        self.conv = nnx.Conv(
            inputs,
            outputs,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2,  # "SAME" would pad a strided convolution on one side only, unlike torchvision.
            use_bias=False,
            dtype=dtype,
            kernel_init=he_normal_fan_out,
            conv_general_dilated=convolve,
            rngs=rngs,
        )
        self.norm = BatchNorm(outputs, scale_init=scale_init, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.norm(self.conv(x), train=train)


class Block(nnx.Module):
    """A chain of convolutions added to a shortcut."""

    expansion: int

    def __init__(self, inputs: int, channels: int, stride: int, *, zero_init_residual: bool, **options: Any):
        outputs = channels * self.expansion
        *first, last = self.convolutions(inputs, channels, stride)
        last_scale = nnx.initializers.zeros if zero_init_residual else nnx.initializers.ones
        self.first = nnx.List([ConvNorm(*sizes, **options) for sizes in first])
        self.last = ConvNorm(*last, scale_init=last_scale, **options)
        same_shape = stride == 1 and inputs == outputs
        self.shortcut = nnx.data(None if same_shape else ConvNorm(inputs, outputs, 1, stride, **options))

    def convolutions(self, inputs: int, channels: int, stride: int) -> list[Sizes]:
        """The sizes of each convolution of the chain."""
        raise NotImplementedError

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x
        for layer in self.first:
            y = nnx.relu(layer(y, train=train))
        y = self.last(y, train=train)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x, train=train)))


class BasicBlock(Block):
    """Two 3x3 convolutions; the first is strided."""

    expansion = 1

    def convolutions(self, inputs: int, channels: int, stride: int) -> list[Sizes]:
        return [(inputs, channels, 3, stride), (channels, channels, 3, 1)]


class BottleneckBlock(Block):
    """1x1, 3x3 and 1x1 convolutions; the 3x3 is strided ("v1.5", as in torchvision)."""

    expansion = 4

    def convolutions(self, inputs: int, channels: int, stride: int) -> list[Sizes]:
        return [(inputs, channels, 1, 1), (channels, channels, 3, stride), (channels, channels * self.expansion, 1, 1)]


_BLOCKS: dict[str, type[Block]] = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


class ResNet(nnx.Module):
    """A residual network without its classifier: images to features.

    Weights are drawn as torchvision draws them: He normal by fan-out, scales 1 (`zero_init_residual` makes the last
    scale of each block 0; torchvision's default, and ours, is not to), biases 0. Parameters and running statistics are
    float32.

    Args:
      block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3 and 1x1).
      stage_sizes: blocks in each stage; the stages after the first halve the image and double the channels.
      channels: channels of the images.
      stem: "small" (3x3, stride 1: for images of 8 to 64 pixels) or "plain" (7x7, stride 2, then 3x3 max-pooling,
        stride 2: ImageNet).
      width: channels of the first stage; four stages have 8 (of bottlenecks: 32) times as many features.
      dtype: dtype of the convolutions; normalisation and the final pooling are float32 whatever it is.
      zero_init_residual: start every block as its shortcut.
      rngs: source of keys.

    Raises:
      UsageError: unknown `block`, `stem` or `dtype`, or a width below 1.

    Example:
      >>> model = ResNet("basic", (2, 2, 2, 2), channels=1, stem="small", width=8, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8, 8, 1))).shape
      (2, 64)

    Reference:
      He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; the small stem: Chen et al., "A Simple
      Framework for Contrastive Learning of Visual Representations", ICML 2020, Appendix B.9.
    """

    def __init__(
        self,
        block: Literal["basic", "bottleneck"],
        stage_sizes: Sequence[int],
        *,
        channels: int = 3,
        stem: Stem = "plain",
        width: int = 64,
        dtype: DTypeLike = jnp.float32,
        zero_init_residual: bool = False,
        rngs: nnx.Rngs,
    ):
        check_choice("block", block, tuple(_BLOCKS))
        check_choice("stem", stem, get_args(Stem))
        check_dtype(dtype)
        check_at_least_one(width=width, channels=channels)
        kind = _BLOCKS[block]
        self.channels, self.stem, self.stage_sizes = channels, stem, tuple(stage_sizes)
        kernel, stride = (3, 1) if stem == "small" else (7, 2)
        self.first = ConvNorm(channels, width, kernel, stride, dtype=dtype, rngs=rngs)
        options: dict[str, Any] = dict(dtype=dtype, zero_init_residual=zero_init_residual, rngs=rngs)
        inputs, blocks = width, []
        for stage, size in enumerate(stage_sizes):
            for i in range(size):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(kind(inputs, width * 2**stage, stride, **options))
                inputs = width * 2**stage * kind.expansion
        self.blocks = nnx.List(blocks)
        self.num_features = inputs

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features of images.

        Args:
          images: [b, height, width, channels], floating point.
          train: normalise by the batch and move the running averages, rather than normalise by the running averages.

        Returns:
          [b, num_features] float32, averaged over positions.

        Raises:
          UsageError: `images` has another shape, or integers (which would be pixels not yet scaled).
        """
        check_images(images, (None, None, self.channels))
        x = nnx.relu(self.first(images, train=train))
        if self.stem == "plain":
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x, train=train)
        return x.mean(axis=(1, 2), dtype=jnp.float32)


def _variant(name: str, block: Literal["basic", "bottleneck"], stage_sizes: Sequence[int]) -> Callable[..., ResNet]:
    def build(
        image_shape: tuple[int, int, int],
        *,
        rngs: nnx.Rngs,
        stem: Stem = "small",
        width: int = 64,
        dtype: DTypeLike = "float32",
        zero_init_residual: bool = False,
    ) -> ResNet:
        """A `ResNet` for images [b, *image_shape]; the arguments are those of `ResNet`."""
        return ResNet(
            block,
            stage_sizes,
            channels=image_shape[-1],
            stem=stem,
            width=width,
            dtype=dtype,
            zero_init_residual=zero_init_residual,
            rngs=rngs,
        )

    build.__qualname__ = build.__name__ = f"build_{name}"
    return build


build_resnet10 = _variant("resnet10", "basic", (1, 1, 1, 1))  # for tests
build_resnet18 = _variant("resnet18", "basic", (2, 2, 2, 2))
build_resnet34 = _variant("resnet34", "basic", (3, 4, 6, 3))
build_resnet50 = _variant("resnet50", "bottleneck", (3, 4, 6, 3))
