"""The model that contrastive learning trains, an encoder and a head, and its purely functional form."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from contrastive_jax.models._heads import ProjectionHead
from contrastive_jax.models._resnet import ResNet, Stem


class ContrastiveModel(nnx.Module):
    """An encoder, whose features are evaluated, and a head, whose projections are contrasted.

    Args:
      encoder: images [b, h, w, c] to features [b, f].
      head: features [b, f] to projections [b, d].

    Example:
      >>> model = create("resnet18", channels=1, stem="small", width=8)
      >>> images = jnp.zeros((2, 8, 8, 1))
      >>> model(images).shape, model.features(images).shape
      ((2, 128), (2, 64))
    """

    def __init__(self, encoder: ResNet, head: ProjectionHead):
        self.encoder = encoder
        self.head = head

    def features(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features [b, f] float32 of images [b, h, w, c]."""
        return self.encoder(images, train=train)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Projections [b, d] float32, not normalised, of images [b, h, w, c]."""
        return self.head(self.encoder(images, train=train), train=train)


def create(
    name: str,
    *,
    channels: int = 3,
    stem: Stem = "small",
    width: int = 64,
    head_hidden: int | None = None,
    head_out: int = 128,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
    zero_init_residual: bool = False,
    seed: int = 0,
) -> ContrastiveModel:
    """A ResNet with a projection head.

    Args:
      name: "resnet10" (for tests), "resnet18", "resnet34" or "resnet50".
      channels: channels of the images.
      stem: "small" for small images, "plain" for ImageNet; see `ResNet`.
      width: channels of the first stage.
      head_hidden: size of the head's hidden layer; by default that of the features (512 for resnet18, 2048 for
        resnet50, at width 64).
      head_out: size of the projections.
      dtype: dtype of the convolutions; parameters and outputs are float32 whatever it is.
      axis_name: mapped axis over which batches are normalised in training. Calls with `train=False` need no such axis.
      zero_init_residual: start every block as its shortcut.
      seed: the same seed gives the same parameters, whatever `axis_name` and `dtype` are.

    Returns:
      The model, with float32 parameters.

    Raises:
      ValueError: unknown `name` or `stem`.

    Example:
      >>> create("resnet18", channels=1, width=8).encoder.num_features
      64

    Reference:
      Lee et al. 2025, experimental protocol.
    """

    rngs = nnx.Rngs(seed)
    encoder = ResNet(
        name,
        channels=channels,
        stem=stem,
        width=width,
        dtype=dtype,
        axis_name=axis_name,
        zero_init_residual=zero_init_residual,
        rngs=rngs,
    )
    hidden = encoder.num_features if head_hidden is None else head_hidden
    head = ProjectionHead(encoder.num_features, hidden, head_out, axis_name=axis_name, rngs=rngs)
    return ContrastiveModel(encoder, head)


def functional(model: ContrastiveModel) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """A model as data: what it is, its parameters, and its running statistics.

    Returns:
      `(graphdef, params, batch_stats)`: a hashable description, and two pytrees of float32 arrays.

    Example:
      >>> graphdef, params, batch_stats = functional(create("resnet18", channels=1, width=8))
      >>> projections, batch_stats = apply(graphdef, params, batch_stats, jnp.ones((2, 8, 8, 1)), train=True)
    """
    return nnx.split(model, nnx.Param, nnx.BatchStat)  # type: ignore[return-value]


def apply(
    graphdef: nnx.GraphDef, params: nnx.State, batch_stats: nnx.State, images: jax.Array, *, train: bool
) -> tuple[jax.Array, nnx.State]:
    """Projections of images, and the running statistics after them; a pure function, differentiable in `params`.

    Args:
      graphdef, params, batch_stats: the model, from `functional`.
      images: [b, h, w, c], floating point.
      train: normalise by the batch, over the model's `axis_name`; otherwise by `batch_stats`, which then stay.

    Returns:
      `(projections, batch_stats)`: [b, d] float32, and statistics of the structure of the given ones. In a mapped
      function they are the same on every device, and `shard_map` knows it (`out_specs=P()` passes its check).
    """
    # Without a copy the model would hold, and move, the variables of the caller.
    model = nnx.merge(graphdef, params, batch_stats, copy=True)
    projections = model(images, train=train)
    return projections, nnx.state(model, nnx.BatchStat)


def features(graphdef: nnx.GraphDef, params: nnx.State, batch_stats: nnx.State, images: jax.Array) -> jax.Array:
    """Features [b, f] float32 of images [b, h, w, c], normalised by `batch_stats`; needs no mapped axis."""
    return nnx.merge(graphdef, params, batch_stats).features(images)
