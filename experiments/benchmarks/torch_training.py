"""The training step of the presets in plain PyTorch, for comparison: the same network, views, loss and optimiser.

Tensor operations make all views of a batch at once: on a CPU this is faster than one image at a time in worker
processes. The modules have the names of ours, so parameters can be carried over and the networks compared.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from contrastive_jax.data.views import ViewConfig
from contrastive_jax.jobs import parts
from experiments.benchmarks import torch_losses

_BLOCKS = (2, 2, 2, 2)  # resnet18
_LUMA = (0.2989, 0.587, 0.114)
Uniform = Callable[..., Tensor]  # (low, high, *shape) -> [b, *shape]


class ConvNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.ModuleList([ConvNorm(inputs, outputs, 3, stride)])
        self.last = ConvNorm(outputs, outputs, 3)
        self.shortcut = None if stride == 1 and inputs == outputs else ConvNorm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(functional.relu(self.first[0](x)))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Encoder(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.first, inputs, blocks = ConvNorm(channels, width, 3), width, []
        for stage, size in enumerate(_BLOCKS):
            for i in range(size):
                blocks.append(Block(inputs, width * 2**stage, 2 if stage > 0 and i == 0 else 1))
                inputs = width * 2**stage
        self.blocks, self.num_features = nn.ModuleList(blocks), inputs

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


class Head(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.hidden, self.norm = nn.Linear(inputs, inputs, bias=False), nn.BatchNorm1d(inputs)
        self.out = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(functional.relu(self.norm(self.hidden(x))))


class Model(nn.Module):
    def __init__(self, channels: int, width: int, outputs: int):
        super().__init__()
        self.encoder = Encoder(channels, width)
        self.head = Head(self.encoder.num_features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def load_parameters(model: nn.Module, params: Any) -> None:
    """Carry over our parameters, a tree of arrays; every parameter of the model must be among them."""
    import jax

    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    carried = {}
    for path, value in jax.tree_util.tree_flatten_with_path(params)[0]:
        *modules, leaf = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path if not _is_value(key)]
        value = torch.from_numpy(np.array(value))
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]  # [h, w, in, out] and [in, out]
        carried[".".join([*modules, names[leaf]])] = value.permute(axes).contiguous()
    missing = model.load_state_dict(carried, strict=False)
    assert not missing.unexpected_keys and all("running" in x or "tracked" in x for x in missing.missing_keys)


def _is_value(key: Any) -> bool:
    return getattr(key, "name", None) == "value"


def random_views(images: Tensor, config: ViewConfig, generator: torch.Generator) -> Tensor:
    """One random view [b, C, size, size] of each image, uint8 [b, H, W, C]."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((b, *shape), generator=generator, device=generator.device)

    b, height, width, channels = images.shape
    x = images.permute(0, 3, 1, 2).float() / 255
    x = _crop(x, *_boxes(uniform, height, width, config), config.size)
    if config.flip > 0:
        x = torch.where((uniform(0, 1) < config.flip)[:, None, None, None], x.flip(3), x)
    x = torch.where((uniform(0, 1) < config.jitter)[:, None, None, None], _jitter(x, uniform, config), x)
    if channels == 3:
        x = torch.where((uniform(0, 1) < config.greyscale)[:, None, None, None], _luma(x).expand_as(x), x)
    radius = config.size // 20
    if radius > 0:
        blurred = _blur(x, uniform(*config.blur_sigma), radius)
        x = torch.where((uniform(0, 1) < config.blur)[:, None, None, None], blurred, x)
    mean, std = (torch.tensor(np.broadcast_to(value, channels).copy()).float() for value in (config.mean, config.std))
    return (x.clip(0, 1) - mean[:, None, None]) / std[:, None, None]


def _boxes(uniform: Uniform, height: int, width: int, config: ViewConfig) -> tuple[Tensor, Tensor]:
    """Corner [b, 2] and extent [b, 2] of a random box: the first of ten that fits, or else the whole image."""
    side = torch.sqrt(height * width * uniform(*config.crop_scale, 10))
    root = torch.exp(uniform(*(math.log(x) for x in config.crop_ratio), 10) / 2)
    extents = torch.round(torch.stack([side / root, side * root], -1))
    limit = torch.tensor([height, width], dtype=torch.float32)
    fits = ((extents >= 1) & (extents <= limit)).all(-1)
    chosen = extents[torch.arange(len(extents)), fits.int().argmax(1)]
    extent = torch.where(fits.any(1)[:, None], chosen, limit)
    return torch.floor(uniform(0, 1, 2) * (limit - extent + 1)), extent


def _crop(x: Tensor, corner: Tensor, extent: Tensor, size: int) -> Tensor:
    """Antialiased bilinear resampling of each image's box: a matrix product for the rows and one for the columns."""
    rows, columns = (_resampling(x.shape[2 + axis], corner[:, axis], extent[:, axis], size) for axis in (0, 1))
    return torch.einsum("byh,bchw,bxw->bcyx", rows, x, columns)


def _resampling(length: int, corner: Tensor, extent: Tensor, size: int) -> Tensor:
    scale = (extent / size)[:, None, None]
    centre = corner[:, None, None] + (torch.arange(size)[None, :, None] + 0.5) * scale - 0.5
    weights = (1 - (torch.arange(length)[None, None] - centre).abs() / scale.clip(min=1)).clip(min=0)
    return weights / weights.sum(-1, keepdim=True)


def _jitter(x: Tensor, uniform: Uniform, config: ViewConfig) -> Tensor:
    """Brightness, contrast, saturation and hue, in one random order for the batch."""
    operations = [lambda x: _blend(x, 0.0, config.brightness, uniform)]
    operations.append(lambda x: _blend(x, _luma(x).mean((1, 2, 3), keepdim=True), config.contrast, uniform))
    if x.shape[1] == 3:
        operations.append(lambda x: _blend(x, _luma(x), config.saturation, uniform))
        operations.append(lambda x: _shift_hue(x, uniform(-config.hue, config.hue, 1, 1)))
    for k in torch.randperm(len(operations), device="cpu"):
        x = operations[k](x)
    return x


def _blend(x: Tensor, target: Tensor | float, strength: float, uniform: Uniform) -> Tensor:
    factor = uniform(max(0, 1 - strength), 1 + strength, 1, 1, 1)
    return (factor * x + (1 - factor) * target).clip(0, 1)


def _luma(x: Tensor) -> Tensor:
    return x if x.shape[1] == 1 else torch.einsum("bchw,c->bhw", x, torch.tensor(_LUMA))[:, None]


def _shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    divisor = torch.where(chroma > 0, chroma, 1.0)
    from_green = torch.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    sextant = torch.where((red >= green) & (red >= blue), (green - blue) / divisor, from_green) + 6 * turns
    k = (torch.tensor([5.0, 3.0, 1.0])[:, None, None] + sextant[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clip(0, 1)


def _blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each image with its own kernel: a grouped convolution over its rows, then one over its columns."""
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-(offsets[None] ** 2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)
    flat = functional.pad(x, (radius,) * 4, mode="reflect").reshape(1, -1, *(s + 2 * radius for s in x.shape[2:]))
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=flat.shape[1])
    return functional.conv2d(flat, kernel[:, None, None, :], groups=flat.shape[1]).reshape(x.shape)


def make_stepper(
    config: ConfigDict, view_config: ViewConfig, params: Any, channels: int, threads: int, device: str = "cpu"
) -> tuple[Callable[[np.ndarray], float], Model]:
    """A function that takes one step on uint8 images [b, H, W, C] and returns its loss; and the model.

    On a GPU the images of a batch lie channels last, and an encoder of bfloat16 runs under autocast.
    """
    torch.set_num_threads(threads)
    torch.set_default_device(device)
    generator = torch.Generator(device).manual_seed(config.seed)
    encoder, head, loss, sgd = (_arguments(config, kind) for kind in parts.KINDS)
    model = Model(channels, encoder["width"], head["out"])
    load_parameters(model, params)
    layout = torch.contiguous_format if device == "cpu" else torch.channels_last
    model = model.to(device, memory_format=layout)
    half = torch.autocast(device, dtype=torch.bfloat16, enabled=encoder["dtype"] == "bfloat16")
    rate = config.optimizer.learning_rate * config.batch_size / 256
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=sgd["momentum"], weight_decay=sgd["weight_decay"])
    loss_fn = torch_losses.create("torch", config.loss.name, loss["temperature"])

    def step(images: np.ndarray) -> float:
        images = torch.from_numpy(images).to(device)
        views = torch.cat([random_views(images, view_config, generator) for _ in range(2)])
        with half:
            projections = model(views.contiguous(memory_format=layout))
        loss = loss_fn(*projections.float().chunk(2))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, model


def _arguments(config: ConfigDict, kind: parts.Kind) -> dict[str, Any]:
    """The keyword arguments of a part: those that the configuration sets, and the part's defaults."""
    defaults = parts.arguments(kind, parts.load(kind, parts.named(config, kind))).defaults
    return {**defaults, **parts.section(config, kind)}
