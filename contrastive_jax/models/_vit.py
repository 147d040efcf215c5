"""A plain vision transformer."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from contrastive_jax.errors import UsageError
from contrastive_jax.models._checks import check_at_least_one, check_dtype, check_images

_MLP_RATIO = 4
_EPSILON = 1e-6

_Norm = functools.partial(nnx.LayerNorm, epsilon=_EPSILON, dtype=jnp.float32, use_fast_variance=False)
_Linear = functools.partial(nnx.Linear, kernel_init=nnx.initializers.xavier_uniform())


def _dropout(rate: float, rngs: nnx.Rngs) -> nnx.Dropout:
    # Without a rate it holds no stream of random numbers, so that training needs no keys.
    return nnx.Dropout(rate, rngs=rngs if rate else None)


class Attention(nnx.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(d / heads)) v, then a linear layer."""

    def __init__(self, dim: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = heads
        self.query = _Linear(dim, dim, dtype=dtype, rngs=rngs)
        self.key = _Linear(dim, dim, dtype=dtype, rngs=rngs)
        self.value = _Linear(dim, dim, dtype=dtype, rngs=rngs)
        self.out = _Linear(dim, dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, n, dim] to [b, n, dim]."""
        q, k, v = (
            layer(x).reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads)
            for layer in (self.query, self.key, self.value)
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))


class EncoderBlock(nnx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), the MLP of one hidden layer of 4 * dim with GELU."""

    def __init__(self, dim: int, heads: int, *, dropout: float, dtype: DTypeLike, rngs: nnx.Rngs):
        self.attention_norm = _Norm(dim, rngs=rngs)
        self.attention = Attention(dim, heads, dtype=dtype, rngs=rngs)
        self.mlp_norm = _Norm(dim, rngs=rngs)
        self.hidden = _Linear(dim, _MLP_RATIO * dim, dtype=dtype, rngs=rngs)
        self.out = _Linear(_MLP_RATIO * dim, dim, dtype=dtype, rngs=rngs)
        self.attention_dropout, self.hidden_dropout, self.out_dropout = (_dropout(dropout, rngs) for _ in range(3))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[b, n, dim] float32 to the same."""
        y = self.attention(self.attention_norm(x))
        x = x + self.attention_dropout(y, deterministic=not train).astype(x.dtype)
        y = nnx.gelu(self.hidden(self.mlp_norm(x)), approximate=False)
        y = self.out(self.hidden_dropout(y, deterministic=not train))
        return x + self.out_dropout(y, deterministic=not train).astype(x.dtype)


class VisionTransformer(nnx.Module):
    """A vision transformer: embedded patches, blocks with the normalisation first, and the mean over patches.

    Each patch of `patch_size` x `patch_size` pixels becomes a vector by one linear map, to which a learnt embedding of
    its position is added. After the last block the tokens are normalised and averaged; there is no class token, which
    with the same training gives features as good (Zhai et al. 2022). No layer normalises over the batch. Kernels start
    as Glorot uniform, biases as 0, position embeddings as normal of standard deviation 0.02.

    Args:
      image_shape: `(height, width, channels)` of the images; height and width are multiples of `patch_size`.
      patch_size: pixels along the side of a patch.
      dim: size of the tokens and of the features, a multiple of `heads`.
      depth: number of blocks.
      heads: attention heads.
      dropout: rate of Dropout after every linear layer but those of queries, keys and values, and after the positions
        are added (Dosovitskiy et al. 2021, Appendix B.1).
      dtype: dtype of the matrix products; parameters, normalisation, the sum over the blocks and the features are
        float32 whatever it is.
      rngs: source of keys.

    Raises:
      UsageError: sizes that do not divide, a rate outside [0, 1), or an unknown `dtype`.

    Example:
      >>> encoder = VisionTransformer((8, 8, 1), patch_size=4, dim=12, depth=2, heads=3, rngs=nnx.Rngs(0))
      >>> encoder(jnp.zeros((2, 8, 8, 1))).shape
      (2, 12)

    Reference:
      Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, Equations 1 to 4; the sizes of "tiny" and "small":
      Touvron et al., "Training data-efficient image transformers", ICML 2021, Table 1; the mean in place of the class
      token: Zhai et al., "Scaling Vision Transformers", CVPR 2022, Section 3.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        patch_size: int = 4,
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
        dropout: float = 0.0,
        dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        check_dtype(dtype)
        check_at_least_one(patch_size=patch_size, dim=dim, depth=depth, heads=heads)
        height, width, channels = image_shape
        if height % patch_size or width % patch_size:
            raise UsageError(
                f"expected images whose height and width are multiples of patch_size={patch_size}, got {height} x "
                f"{width}. Choose a patch_size that divides both, or resize the images."
            )
        if dim % heads:
            raise UsageError(f"expected dim to be a multiple of heads={heads}, got {dim}.")
        if not 0 <= dropout < 1:
            raise UsageError(f"expected dropout to be at least 0 and below 1, got {dropout}.")
        self.image_shape, self.patch_size = tuple(image_shape), patch_size
        patches = (height // patch_size) * (width // patch_size)
        self.embed = _Linear(patch_size**2 * channels, dim, dtype=dtype, rngs=rngs)
        self.positions = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (patches, dim), jnp.float32))
        self.dropout = _dropout(dropout, rngs)
        self.blocks = nnx.List(
            [EncoderBlock(dim, heads, dropout=dropout, dtype=dtype, rngs=rngs) for _ in range(depth)]
        )
        self.norm = _Norm(dim, rngs=rngs)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features [b, dim] float32 of images [b, *image_shape], floating point; Dropout is used where `train`."""
        check_images(images, self.image_shape)
        x = self.embed(self._patches(images)).astype(jnp.float32) + self.positions[...][None]
        x = self.dropout(x, deterministic=not train)
        for block in self.blocks:
            x = block(x, train=train)
        return self.norm(x).mean(axis=1)

    def _patches(self, images: jax.Array) -> jax.Array:
        """[b, h, w, c] as [b, patches, patch_size^2 * c], patches and the pixels in each row by row."""
        batch, height, width, channels = images.shape
        size = self.patch_size
        x = images.reshape(batch, height // size, size, width // size, size, channels)
        return x.swapaxes(2, 3).reshape(batch, -1, size * size * channels)


def _variant(name: str, dim: int, heads: int) -> Callable[..., VisionTransformer]:
    def build(
        image_shape: tuple[int, int, int],
        *,
        rngs: nnx.Rngs,
        patch_size: int = 4,
        depth: int = 12,
        dropout: float = 0.0,
        dtype: DTypeLike = "float32",
    ) -> VisionTransformer:
        """A `VisionTransformer` for images [b, *image_shape]; the arguments are those of `VisionTransformer`."""
        return VisionTransformer(
            image_shape,
            patch_size=patch_size,
            dim=dim,
            depth=depth,
            heads=heads,
            dropout=dropout,
            dtype=dtype,
            rngs=rngs,
        )

    build.__qualname__ = build.__name__ = f"build_{name}"
    return build


build_vit_tiny = _variant("vit_tiny", dim=192, heads=3)
build_vit_small = _variant("vit_small", dim=384, heads=6)
