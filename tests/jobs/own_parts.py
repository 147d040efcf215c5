"""Parts of a user's own, as another package would hold them, named `tests.jobs.own_parts:...`."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from contrastive_jax import pairwise


class Encoder(nnx.Module):
    """Flax's own layers alone, which know nothing of devices or of contrastive learning."""

    def __init__(self, image_shape, *, rngs, width=8, rate=0.2):
        self.conv = nnx.Conv(image_shape[-1], width, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, images):
        return self.dropout(nnx.relu(self.norm(self.conv(images)))).mean((1, 2))


class LinenEncoder(linen.Module):
    """The same in Linen."""

    @linen.compact
    def __call__(self, images, train=False):
        x = linen.Conv(8, (3, 3), strides=2)(images)
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dropout(0.2, deterministic=not train)(linen.relu(x)).mean((1, 2))


def linen_encoder(image_shape, *, rngs):
    model = nnx.bridge.ToNNX(LinenEncoder(), rngs=rngs)
    return nnx.bridge.lazy_init(model, jnp.zeros((1, *image_shape)))


def flat_encoder(image_shape, *, rngs):
    """Gives maps [b, h, w, c], not features."""
    return nnx.Conv(image_shape[-1], 4, (3, 3), rngs=rngs)


class Recurrent(nnx.Module):
    """Features from a loop over the rows of an image that starts from zeros, and an exact GELU."""

    def __init__(self, image_shape, *, rngs):
        _, width, channels = image_shape
        self.read = nnx.Linear(width * channels, 8, rngs=rngs)
        self.keep = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, images):
        rows = jnp.moveaxis(images, 1, 0).reshape(images.shape[1], len(images), -1)

        def turn(carry, row):
            return jax.nn.gelu(self.keep(carry) + self.read(row), approximate=False), None

        return jax.lax.scan(turn, jnp.zeros((len(images), 8)), rows)[0]


def triplets(u, v, *, ids, axis_name, margin=0.5):
    """A loss of one's own: every negative that is nearer than the positive and a margin."""
    positive = jnp.sum(pairwise.normalize(u) * pairwise.normalize(v), axis=-1)
    options = {"anchor_ids": ids, "candidate_ids": ids, "axis_name": axis_name}
    u, v = pairwise.normalize(u), pairwise.normalize(v)
    return pairwise.total(lambda s: jax.nn.relu(s + margin), u, v, **options) - positive


def reduced(u, v, *, ids, axis_name):
    """A mistake: the mean, not a value for each pair."""
    return jnp.mean((u - v) ** 2)


class Stripes:
    """A source: images [8, 8, 1] made when they are asked for."""

    image_shape = (8, 8, 1)

    def __init__(self, count, seed):
        self.labels = np.arange(count) % 4
        self._seed = seed

    def __len__(self):
        return len(self.labels)

    def take(self, indices):
        images = []
        for index in np.asarray(indices):
            noise = np.random.default_rng((self._seed, int(index))).integers(0, 128, self.image_shape)
            noise[:: self.labels[index] + 1] += 127
            images.append(noise.astype(np.uint8))
        return np.stack(images)


def stripes(split):
    return Stripes(96, 0) if split == "train" else Stripes(48, 1)


class Unlabelled:
    """A source that has nothing but images."""

    image_shape = (8, 8, 1)

    def __init__(self, seed):
        self._images = np.random.default_rng(seed).integers(0, 256, (64, 8, 8, 1), np.uint8)

    def __len__(self):
        return 64

    def take(self, indices):
        return self._images[indices]


def unlabelled(split):
    return Unlabelled(0 if split == "train" else 1)


def spread(state, embeddings, batch):
    """A logged number and an array: the standard deviation of the embeddings, of all and by dimension."""
    u = embeddings[0]
    assert u.shape[0] == batch["id"].shape[0]
    return {"spread": jnp.std(u), "spread_by_dimension": jnp.std(u, axis=0)}


def largest_id(state, embeddings, batch):
    return jnp.max(batch["id"])


def loss(state, embeddings, batch):
    """A mistake: a name that the step logs."""
    return jnp.float32(0)


def no_number(state, embeddings, batch):
    return None


def nested(state, embeddings, batch):
    return {"a": {"b": jnp.float32(0)}}


def shadow(state, embeddings, batch):
    return {"cross_view_mean": jnp.float32(0)}


def fails(*_, **__):
    raise KeyError("by design")


def no_optimizer(schedule):
    return None


class Late(Stripes):
    """Its first image is as it should be, the others are not."""

    def take(self, indices):
        images = super().take(indices)
        return images if list(indices) == [0] else images.astype(np.float32)


def late(split):
    return Late(96, 0)


def anything(u, v, *, ids, axis_name, **kwargs):
    return jnp.sum(u * v, axis=-1)


def typed(u, v, *, ids, axis_name, temperature=1, width: "int | None" = 3, mode="none", **others):
    return temperature * jnp.sum(u * v, axis=-1)


def step(u, v, *, ids, axis_name):
    """A mistake: a loss by a name that the log uses."""
    return jnp.sum(u * v, axis=-1)
