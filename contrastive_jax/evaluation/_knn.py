"""Weighted nearest neighbours: how good features are with nothing trained on them."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from contrastive_jax.evaluation._checks import check_at_least_one, check_positive, prepare_split


@functools.partial(jax.jit, static_argnames=("num_classes", "k", "block_size"))
def _predict(
    train: jax.Array,
    labels: jax.Array,
    test: jax.Array,
    temperature: jax.Array,
    *,
    num_classes: int,
    k: int,
    block_size: int,
) -> jax.Array:
    def vote(query: jax.Array) -> jax.Array:
        # The queries are a vmapped block here, so this is a matrix product of the block with all of `train`.
        similarities, neighbours = jax.lax.top_k(jnp.dot(train, query, precision="highest"), k)
        # Measured from the nearest, which changes no vote, so that no temperature overflows.
        weights = jnp.exp((similarities - similarities[0]) / temperature)
        classes = jax.nn.one_hot(labels[neighbours], num_classes)
        return jnp.dot(weights, classes, precision="highest").argmax()

    return jax.lax.map(vote, test, batch_size=block_size)


def knn(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.07,
    block_size: int = 256,
) -> float:
    """Top-1 accuracy of weighted k-nearest-neighbour classification by cosine similarity.

    Each of the k most similar training examples votes for its class with weight exp(similarity / temperature).
    k = 200 and temperature = 0.07 are the usual values for data sets of the size of CIFAR. Deterministic.

    Args:
      train_features, test_features: [n, f] and [q, f], any float dtype; finite; L2-normalised inside, in float32.
      train_labels, test_labels: [n] and [q] integers in [0, num_classes).
      num_classes: number of classes.
      k: neighbours that vote; n if that is less.
      temperature: how much more near neighbours count.
      block_size: test examples at a time; memory beyond the features is O(block_size * (n + k * num_classes)).

    Returns:
      Share of test examples whose class has most votes.

    Raises:
      UsageError: shapes or labels that do not fit, features that are not finite, or options out of range.

    Example:
      >>> knn(np.eye(4), np.arange(4), np.eye(4), np.arange(4), num_classes=4)
      1.0

    Reference:
      Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, Section 3.4.
    """
    check_at_least_one(k=k, block_size=block_size)
    check_positive(temperature=temperature)
    data = prepare_split(train_features, train_labels, test_features, test_labels, num_classes)
    predictions = _predict(
        data.train,
        data.train_labels,
        data.test,
        jnp.float32(temperature),
        num_classes=num_classes,
        k=min(k, len(data.train)),
        block_size=block_size,
    )
    return int((predictions == data.test_labels).sum()) / len(data.test)
