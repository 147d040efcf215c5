"""A trained encoder in hand: images to features, with the preprocessing of its run."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from contrastive_jax import models
from contrastive_jax.data import sources, views
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import parts, weights
from contrastive_jax.jobs.machine import saved_encoders

Images = Any  # [n, h, w, c], uint8 or floats in [0, 1]: a NumPy or JAX array, or a list of equal images


class Encoder:
    """An encoder with its head, its preprocessing and where it comes from. Make one with `load`.

    Images are uint8, or floats in [0, 1], [n, h, w, c], of any number n and any size. uint8 images are stored, cropped
    and resized as the run's own evaluation does it; floats are cropped and resized alone, which differs where images
    are much larger than the views. They are encoded in batches of one shape, the last one filled up, so that images of
    one stored size and dtype compile once.

    Attributes:
      config: the configuration of the run.
      workdir: its folder.
      step: the steps that the encoder was trained for.
      digest: SHA-256 of its parameters and running statistics, as the checkpoint has it.
      which: "trained encoder" or "momentum encoder".
      has_momentum: whether the run keeps a momentum encoder as well.
      functional: (graphdef, params, state), the model as data, see `models.functional`.
      image_shape: (height, width, channels) of the images after `preprocess`.
      num_features: f of the features.
      batch_size: the images that are encoded at once.
      given: the encoder and the head where `load` was given them.
    """

    def __init__(
        self,
        model: tuple[nnx.GraphDef, nnx.State, nnx.State],
        saved: saved_encoders.Saved,
        config: ConfigDict,
        workdir: Path,
        *,
        image_shape: tuple[int, int, int],
        batch_size: int,
        given: parts.Own = parts.NONE,
    ) -> None:
        self.given = given
        self.config, self.workdir, self.image_shape, self.batch_size = config, workdir, image_shape, batch_size
        self.step, self.digest = saved.step, saved.digest
        self.which, self.has_momentum = saved.which, saved.has_momentum
        graphdef, *states = model
        self.functional = graphdef, *jax.device_put(states)
        view_config = config_lib.view_config(config)
        self._features, self._project, self._both = (
            jax.jit(functools.partial(fn, graphdef, view_config))
            for fn in (compute_features, compute_projections, compute_both)
        )
        self._plain = jax.jit(functools.partial(views.plain_view, config=view_config))
        self.num_features = models.num_features(self.module.encoder, image_shape)

    def __repr__(self) -> str:
        other = saved_encoders.MOMENTUM if self.has_momentum and self.which == saved_encoders.TRAINED else None
        more = f"; momentum=True loads its {other}" if other else ""
        return f"Encoder({self.config.model.name} of {self.workdir}, {self.which}, step {self.step}{more})"

    @property
    def module(self) -> models.ContrastiveModel:
        """A new Flax module with the parameters: `module(x)` projects, `module.features(x)` encodes.

        It takes images that `preprocess` has made. To change it changes nothing here.
        """
        model = models.merge(*self.functional)
        assert isinstance(model, models.ContrastiveModel)
        return model

    def preprocess(self, images: Images) -> jax.Array:
        """What the encoder sees: the central square of each image, resized and normalised.

        Args:
          images: [n, h, w, c], uint8 or floats in [0, 1].

        Returns:
          float32 `[n, *image_shape]`.

        Raises:
          UsageError: images of another form.
        """
        images = self._store(self._check(images))
        return self._plain(images) if len(images) else jnp.zeros((0, *self.image_shape))

    def features(self, images: Images) -> np.ndarray:
        """Features, which the run's own evaluation scores.

        Args:
          images: [n, h, w, c], uint8 or floats in [0, 1].

        Returns:
          float32 [n, num_features].

        Raises:
          UsageError: images of another form.
        """
        return self._in_batches(self._features, images)[0]

    def project(self, images: Images) -> np.ndarray:
        """Projections, which the loss compares; not normalised, as the losses and metrics do that themselves.

        Args:
          images: [n, h, w, c], uint8 or floats in [0, 1].

        Returns:
          float32 [n, d].

        Raises:
          UsageError: images of another form.
        """
        return self._in_batches(self._project, images)[0]

    def embed(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Features [n, num_features] and projections [n, d] in one pass; see `features` and `project`."""
        features, projections = self._in_batches(self._both, images)
        return features, projections

    def save_safetensors(self, path: str | os.PathLike[str], *, identity: bool = False) -> str | None:
        """Write the encoder of a ResNet under torchvision's names; see `weights.write`.

        Args:
          path: the file, which ends in `.safetensors`; an existing one is replaced atomically.
          identity: whether to add a classifier `fc` that returns the features, for `resnet18(num_classes=512)`; without
            it PyTorch takes the file with `fc = torch.nn.Identity()`.

        Returns:
          What to change in torchvision's class before it takes the file, in a line; None for nothing.

        Raises:
          UsageError: the encoder is no ResNet of this package, or the file has another ending.
          MissingExtraError: safetensors is not installed.
        """
        encoder = self.module.encoder
        arrays = models.to_torchvision(encoder)
        if identity:
            arrays |= weights.make_identity(self.num_features)
        about = {
            "encoder": f"{self.config.model.name}, {self.which}",
            "step": self.step,
            "digest": self.digest,
            "image_size": self.config.data.image_size,
            "mean": list(self.config.data.mean),
            "std": list(self.config.data.std),
        }
        weights.write(path, arrays, about)
        return models.describe_difference(encoder)

    def check_source(self, source: sources.Source, name: str) -> None:
        """Refuse images that cannot be encoded.

        Args:
          source: the images.
          name: what they are called in the message.

        Raises:
          UsageError: they have other channels.
        """
        expected, got = self.image_shape[-1], source.image_shape[-1]
        if expected != got:
            raise UsageError(
                f"{name}: expected images of {expected} channels, as the encoder was trained on, got {got}."
            )

    def _in_batches(self, fn: Callable[..., Any], images: Images) -> list[np.ndarray]:
        """Each array [n, ...] that `fn` gives of all images."""
        images, size = self._check(images), self.batch_size
        _, *states = self.functional
        if not len(images):
            one = jax.ShapeDtypeStruct((1, *self.image_shape), np.uint8)
            return [np.zeros((0, *x.shape[1:]), x.dtype) for x in jax.tree.leaves(jax.eval_shape(fn, *states, one))]
        found: list[list[np.ndarray]] = []
        for start in range(0, len(images), size):
            part = self._store(images[start : start + size])
            filled = part[np.minimum(np.arange(size), len(part) - 1)]
            found.append([np.asarray(x)[: len(part)] for x in jax.tree.leaves(fn(*states, filled))])
        return [np.concatenate(pieces) for pieces in zip(*found, strict=True)]

    def _store(self, images: np.ndarray) -> np.ndarray:
        data = self.config.data
        if images.dtype != np.uint8:
            return images
        return sources.store(images, image_size=data.image_size, stored_size=data.stored_size)

    def _check(self, images: Images) -> np.ndarray:
        return check_images(images, channels=self.image_shape[-1])


def compute_features(
    graphdef: nnx.GraphDef, view_config: views.ViewConfig, params: nnx.State, state: nnx.State, images: jax.Array
) -> jax.Array:
    """Features [b, f] of the un-augmented views of images [b, h, w, c]."""
    return models.features(graphdef, params, state, views.plain_view(images, config=view_config))


def compute_projections(
    graphdef: nnx.GraphDef, view_config: views.ViewConfig, params: nnx.State, state: nnx.State, images: jax.Array
) -> jax.Array:
    """Projections [b, d] of the same views, not normalised."""
    plain = views.plain_view(images, config=view_config)
    return models.apply(graphdef, params, state, plain, train=False)[0]


def compute_both(
    graphdef: nnx.GraphDef, view_config: views.ViewConfig, params: nnx.State, state: nnx.State, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Features and projections; XLA encodes the images once for both."""
    given = (graphdef, view_config, params, state, images)
    return compute_features(*given), compute_projections(*given)


def check_images(images: Images, *, channels: int) -> np.ndarray:
    """Images [n, h, w, channels] as a NumPy array, uint8 or float32 in [0, 1].

    Raises:
      UsageError: images of another form; the message says how to convert them.

    Example:
      >>> check_images(np.zeros((2, 8, 8, 1)), channels=1).dtype
      dtype('float32')
      >>> check_images(np.zeros((8, 8, 1)), channels=1)
      Traceback (most recent call last):
      ...
      contrastive_jax.errors.UsageError: expected images [n, h, w, 1], got float64 [8, 8, 1]. Give one image as
      image[None].
    """
    expected = f"expected images [n, h, w, {channels}]"
    try:
        images = np.asarray(images)
    except ValueError:
        raise UsageError(f"{expected} of one size, got several sizes. Encode each size apart.") from None
    got = f"{expected}, got {images.dtype} {list(images.shape)}"
    if images.ndim == 3 and images.shape[-1] in (1, 3):
        raise UsageError(f"{got}. Give one image as image[None].")
    if images.ndim == 3:
        raise UsageError(f"{got}. Add the channels: images[..., None].")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UsageError(f"{got}.")
    if images.shape[-1] != channels:
        convert = "np.repeat(images, 3, axis=-1)" if images.shape[-1] == 1 else "images.mean(axis=-1, keepdims=True)"
        raise UsageError(f"{got}. The encoder was trained on other channels; convert the images, as by {convert}.")
    if images.dtype == np.uint8:
        return images
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UsageError(f"{got}. Give uint8, or floats in [0, 1]: images.astype(np.uint8) if they are in [0, 255].")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise UsageError(
            f"expected float images in [0, 1], not normalised, got some in [{images.min():.3g}, {images.max():.3g}]. "
            "Divide by 255, or undo their normalisation: the encoder normalises itself."
        )
    return images.astype(np.float32)
