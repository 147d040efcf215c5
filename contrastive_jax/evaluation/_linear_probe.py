"""Linear probes: multinomial logistic regression on features, trained as the papers train it, in one compiled loop."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from contrastive_jax.errors import UsageError
from contrastive_jax.evaluation._checks import Split, check_at_least_one, check_positive, prepare_split

Params = dict[str, jax.Array]


class ProbeResult(NamedTuple):
    """Share of test and of training examples classified right, and the mean cross-entropy of training in nats."""

    accuracy: float
    train_accuracy: float
    loss: float


class FewLabelResult(NamedTuple):
    """Mean and standard deviation (over the draws, ddof=0) of the test accuracy, and the accuracy of each draw."""

    accuracy: float
    standard_deviation: float
    accuracies: tuple[float, ...]


def _logits(params: Params, features: jax.Array) -> jax.Array:
    return jnp.dot(features, params["kernel"], precision="highest") + params["bias"]


def _loss(params: Params, features: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(_logits(params, features), labels).mean()


def _correct(params: Params, features: jax.Array, labels: jax.Array) -> jax.Array:
    return (_logits(params, features).argmax(-1) == labels).sum()


def _fit(
    key: jax.Array,
    features: jax.Array,
    labels: jax.Array,
    learning_rate: jax.Array,
    momentum: jax.Array,
    *,
    num_classes: int,
    epochs: int,
    batch_size: int,
    cosine: bool,
) -> Params:
    """Parameters after `epochs` passes of SGD, each over a new permutation without its last partial batch."""
    count = len(labels)
    batch_size = min(batch_size, count)
    steps = count // batch_size

    # Not optax's, which needs implicit promotion of dtypes.
    def decayed(step: jax.Array) -> jax.Array:
        return learning_rate * (1 + jnp.cos(jnp.pi * step.astype(jnp.float32) / (epochs * steps))) / 2

    optimizer = optax.sgd(decayed if cosine else learning_rate, momentum=momentum)
    params = {"kernel": jnp.zeros((features.shape[1], num_classes)), "bias": jnp.zeros((1, num_classes))}

    def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
        params, state = carry
        grads = jax.grad(_loss)(params, features[rows], labels[rows])
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry: Any, key: jax.Array) -> tuple[Any, Any]:
        # A full batch is the same in any order.
        rows = jnp.arange(count) if steps == 1 and batch_size == count else jax.random.permutation(key, count)
        return jax.lax.scan(step, carry, rows[: steps * batch_size].reshape(steps, batch_size))

    (params, _), _ = jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, epochs))
    return params


@functools.partial(jax.jit, static_argnames=("num_classes", "epochs", "batch_size", "cosine"))
def _probe(
    key: jax.Array, data: Split, learning_rate: jax.Array, momentum: jax.Array, **static: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    train = data.train, data.train_labels
    params = _fit(key, *train, learning_rate, momentum, **static)
    return _correct(params, data.test, data.test_labels), _correct(params, *train), _loss(params, *train)


def linear_probe(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    learning_rate: float = 0.1,
    epochs: int = 200,
    batch_size: int = 256,
    momentum: float = 0.9,
    cosine: bool = False,
    seed: int = 0,
) -> ProbeResult:
    """Multinomial logistic regression by SGD without weight decay, from zero, on L2-normalised features.

    The defaults are the papers', for 50,000 examples and more: 39,000 steps. On a small data set they stop far from
    convergence, which penalises features that lie close together (pixels, an untrained encoder) most; there, raise
    `learning_rate` (1 is stable on features of unit length, and goes as far in a tenth of the steps) and `epochs`.

    Args:
      train_features, test_features: [n, f] and [q, f], any float dtype, finite; L2-normalised inside, in float32.
      train_labels, test_labels: [n] and [q] integers in [0, num_classes).
      num_classes: number of classes.
      learning_rate, momentum: of SGD.
      epochs: passes over the training examples, each in a new order.
      batch_size: examples a step; the last partial batch of a pass is left out, and n < batch_size means full batches.
      cosine: decay the learning rate to 0 along a half cosine rather than keep it.
      seed: determines the orders.

    Returns:
      `ProbeResult(accuracy, train_accuracy, loss)`: Python floats; top-1 on the test and training examples, and the
      training cross-entropy in nats.

    Raises:
      UsageError: shapes or labels that do not fit, features that are not finite, or options out of range.

    Example:
      >>> linear_probe(np.eye(4), np.arange(4), np.eye(4), np.arange(4), num_classes=4).accuracy
      1.0

    Reference:
      Lee et al. 2025, experimental protocol.
    """
    check_at_least_one(epochs=epochs, batch_size=batch_size)
    check_positive(learning_rate=learning_rate)
    data = prepare_split(train_features, train_labels, test_features, test_labels, num_classes)
    correct, train_correct, loss = _probe(
        jax.random.key(seed),
        data,
        learning_rate,
        momentum,
        num_classes=num_classes,
        epochs=epochs,
        batch_size=batch_size,
        cosine=cosine,
    )
    return ProbeResult(int(correct) / len(data.test), int(train_correct) / len(data.train), float(loss))


def _draw(labels: np.ndarray, labels_per_class: int, draws: int, seed: int) -> np.ndarray:
    """[draws, classes that occur * labels_per_class] rows, without repetition within a draw."""
    rows = {label: np.flatnonzero(labels == label) for label in np.unique(labels).tolist()}
    for label, found in rows.items():
        if len(found) < labels_per_class:
            raise UsageError(
                f"expected at least labels_per_class={labels_per_class} training examples of each class, got "
                f"{len(found)} of class {label}. Lower labels_per_class."
            )
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            np.concatenate([rng.choice(found, labels_per_class, replace=False) for found in rows.values()])
            for _ in range(draws)
        ]
    )


@functools.partial(jax.jit, static_argnames=("num_classes", "epochs", "batch_size", "cosine"))
def _few_label_probes(rows: jax.Array, data: Split, *arguments: Any, **static: Any) -> jax.Array:
    def probe(rows: jax.Array) -> jax.Array:
        drawn = data._replace(train=data.train[rows], train_labels=data.train_labels[rows])
        return _probe(jax.random.key(0), drawn, *arguments, **static)[0]

    return jax.vmap(probe)(rows)


def few_label_probe(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    labels_per_class: int = 5,
    draws: int = 3,
    learning_rate: float = 0.1,
    steps: int = 2000,
    momentum: float = 0.9,
    seed: int = 0,
) -> FewLabelResult:
    """The linear probe trained on a few labelled examples of each class, over several draws of them.

    Every step is over all the labelled examples, so a draw is deterministic.

    Args:
      train_features, test_features: [n, f] and [q, f], any float dtype, finite; L2-normalised inside, in float32.
      train_labels, test_labels: [n] and [q] integers in [0, num_classes).
      num_classes: number of classes.
      labels_per_class: labelled examples of each class that occurs among the training labels.
      draws: how many times to choose them.
      learning_rate, momentum, steps: of full-batch gradient descent.
      seed: determines the draws; the same seed draws the same examples whatever the features are.

    Returns:
      `FewLabelResult(accuracy, standard_deviation, accuracies)`: Python floats, on all test examples.

    Raises:
      UsageError: shapes or labels that do not fit, features that are not finite, options out of range, or a class with
        too few examples.

    Example:
      >>> features, labels = np.eye(4)[[0, 1, 2, 3] * 5], np.arange(20) % 4
      >>> few_label_probe(features, labels, features, labels, num_classes=4).accuracies
      (1.0, 1.0, 1.0)
    """
    check_at_least_one(labels_per_class=labels_per_class, draws=draws, steps=steps)
    check_positive(learning_rate=learning_rate)
    data = prepare_split(train_features, train_labels, test_features, test_labels, num_classes)
    rows = _draw(np.asarray(train_labels), labels_per_class, draws, seed)
    correct = _few_label_probes(
        rows,
        data,
        learning_rate,
        momentum,
        num_classes=num_classes,
        epochs=steps,
        batch_size=rows.shape[1],
        cosine=False,
    )
    accuracies = np.asarray(correct, np.float64) / len(data.test)
    return FewLabelResult(float(accuracies.mean()), float(accuracies.std()), tuple(accuracies.tolist()))
