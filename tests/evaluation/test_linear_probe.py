"""Probes against scikit-learn's logistic regression, and their errors."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from contrastive_jax.evaluation import few_label_probe, linear_probe


def test_converged_probe_agrees_with_scikit_learn(digits):
    train, train_labels, test, test_labels = digits
    result = linear_probe(*digits, num_classes=10, learning_rate=1.0, epochs=2000)
    reference = LogisticRegression(C=100, max_iter=2000).fit(normalize(train), train_labels)
    assert abs(result.accuracy - reference.score(normalize(test), test_labels)) < 0.015
    assert abs(result.train_accuracy - reference.score(normalize(train), train_labels)) < 0.015


def test_tenfold_learning_rate_goes_as_far_in_a_tenth_of_the_steps(digits):
    fast = linear_probe(*digits, num_classes=10, learning_rate=1.0)
    slow = linear_probe(*digits, num_classes=10, epochs=2000)
    papers = linear_probe(*digits, num_classes=10)
    assert fast.loss == pytest.approx(slow.loss, rel=0.02)
    assert papers.loss > 2 * slow.loss
    assert 0.92 < papers.accuracy < fast.accuracy


def test_full_batch_is_gradient_descent_with_momentum(digits):
    train, labels, *_ = digits
    train, labels = train[:50], labels[:50]
    result = linear_probe(train, labels, train, labels, num_classes=10, epochs=30)
    features, targets = normalize(train), np.eye(10)[labels]
    kernel, bias, momentum = np.zeros((64, 10)), np.zeros(10), [0.0, 0.0]

    def softmax():
        scores = np.exp(features @ kernel + bias)
        return scores / scores.sum(-1, keepdims=True)

    for _ in range(30):
        error = (softmax() - targets) / 50
        momentum = [0.9 * momentum[0] + features.T @ error, 0.9 * momentum[1] + error.sum(0)]
        kernel, bias = kernel - 0.1 * momentum[0], bias - 0.1 * momentum[1]
    np.testing.assert_allclose(result.loss, -np.log((softmax() * targets).sum(-1)).mean(), rtol=1e-5)


def test_seed_decides_the_result_and_features_may_be_jax_arrays(digits):
    short = dict(num_classes=10, epochs=5, cosine=True)
    first = linear_probe(*digits, **short)
    assert first == linear_probe(*map(jnp.asarray, digits), **short)
    assert first.loss != linear_probe(*digits, seed=1, **short).loss
    assert all(isinstance(value, float) for value in first)


def test_few_label_probe_agrees_with_scikit_learn(digits):
    result = few_label_probe(*digits, num_classes=10, draws=5)
    # 0.851: LogisticRegression(C=100), the mean over five such draws; one draw varies by 0.02.
    assert abs(result.accuracy - 0.851) < 0.03
    assert len(result.accuracies) == 5
    assert result.accuracy == pytest.approx(np.mean(result.accuracies))
    assert result.standard_deviation == pytest.approx(np.std(result.accuracies))


def test_few_label_draws_depend_on_the_seed_alone(digits):
    few = dict(num_classes=10, steps=20)
    assert few_label_probe(*digits, **few) == few_label_probe(*digits, **few)
    assert few_label_probe(*digits, seed=1, **few) != few_label_probe(*digits, **few)
    assert few_label_probe(*digits, draws=2, **few).accuracies == few_label_probe(*digits, **few).accuracies[:2]


def test_class_with_too_few_examples_is_refused(digits):
    with pytest.raises(ValueError, match=r"class 0 has \d+ examples, want at least labels_per_class=1000"):
        few_label_probe(*digits, num_classes=10, labels_per_class=1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.zeros((1436, 64))}, r"train features are \[1436, 64\] and labels \[1437\]"),
        ({2: np.zeros((360, 8, 8))}, r"test features are \[360, 8, 8\]"),
        ({2: np.zeros((360, 63))}, r"want one f"),
        ({1: np.full(1437, 10)}, r"train labels span 10 to 10, want within 0 to 9"),
    ],
)
def test_parts_that_do_not_fit_are_refused(digits, change, message):
    parts = [change.get(i, part) for i, part in enumerate(digits)]
    with pytest.raises(ValueError, match=message):
        linear_probe(*parts, num_classes=10)
