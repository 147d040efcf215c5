"""Whether PyTorch takes our weights and we take PyTorch's: features of torchvision's ResNets beside ours.

    python -m experiments.reliability.torchvision_weights [--size=224]

Needs torch and torchvision, which no extra installs. Each network has random weights and random running statistics.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from contrastive_jax import models
from contrastive_jax.jobs import weights

try:
    import safetensors.torch
    import torch
    import torchvision
except ImportError as error:
    raise SystemExit(f"error: {error}: pip install safetensors torch torchvision") from None

NETWORKS = ("resnet18", "resnet34", "resnet50")
LIMIT = 1e-4  # of the greatest feature


def make_ours(name: str, seed: int) -> Any:
    """A ResNet of ours with torchvision's stem, its normalisations drawn at random, too."""
    encoder = models.ENCODERS[name]((224, 224, 3), stem="plain", rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    arrays = models.to_torchvision(encoder)
    for key, x in arrays.items():
        if x.ndim == 1:
            arrays[key] = (x + rng.uniform(-0.2, 0.2, x.shape)).astype(np.float32)
    models.load_torchvision(encoder, arrays)
    return encoder


def compare(name: str, size: int, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield (direction, greatest difference of a feature relative to the greatest feature)."""
    images = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype(np.float32)
    ours, path = make_ours(name, seed=0), folder / f"{name}.safetensors"
    features = encode(ours, images)
    weights.write(path, models.to_torchvision(ours), {})
    theirs = getattr(torchvision.models, name)()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(safetensors.torch.load_file(path), strict=True)
    yield "out, fc = Identity()", difference(features, encode_with_torch(theirs, images))

    weights.write(path, models.to_torchvision(ours) | weights.make_identity(ours.num_features), {})
    theirs = getattr(torchvision.models, name)(num_classes=ours.num_features)
    theirs.load_state_dict(safetensors.torch.load_file(path), strict=True)
    yield "out, fc of identity", difference(features, encode_with_torch(theirs, images))

    torch.manual_seed(1)
    theirs = getattr(torchvision.models, name)()
    safetensors.torch.save_file(theirs.state_dict(), path)
    weights.load_into(ours, str(path))
    theirs.fc = torch.nn.Identity()
    yield "in", difference(encode(ours, images), encode_with_torch(theirs, images))


def encode(encoder: nnx.Module, images: np.ndarray) -> np.ndarray:
    """Features [n, f] of our encoder."""
    return np.asarray(jax.jit(models.features)(*models.functional(encoder), jnp.asarray(images)))


def encode_with_torch(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Features [n, f] of a PyTorch module, of the same images."""
    with torch.no_grad():
        return model.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The greatest difference, relative to the greatest feature."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def main(arguments: Sequence[str]) -> int:
    """Compare all networks; 0 if every feature agrees."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reliability.torchvision_weights", description=__doc__)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (%(default)s)")
    options = parser.parse_args(arguments)
    print("| network | direction | greatest difference |\n|---|---|---:|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            for direction, found in compare(name, options.size, Path(folder)):
                print(f"| {name} | {direction} | {found:.1e} |", flush=True)
                worst = max(worst, found)
    print(f"\ntorch {torch.__version__}, torchvision {torchvision.__version__}, jax {jax.__version__}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
