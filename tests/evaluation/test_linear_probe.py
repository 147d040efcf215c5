"""Probes against scikit-learn's logistic regression, and their errors."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from contrastive_jax.errors import UsageError
from contrastive_jax.evaluation import few_label_probe, knn, linear_probe


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


def test_few_label_probe_counts_the_classes_that_occur(digits):
    train, labels, test, test_labels = digits
    few = {"draws": 2, "steps": 20}
    apart = few_label_probe(train, labels * 2 + 1, test, test_labels * 2 + 1, num_classes=20, **few)
    assert apart.accuracy > 0.5
    with pytest.raises(UsageError, match="got 3 of class 11"):
        few_label_probe(train[:3], np.full(3, 11), test, test_labels, num_classes=20, **few)


def test_few_label_draws_depend_on_the_seed_alone(digits):
    few = dict(num_classes=10, steps=20)
    assert few_label_probe(*digits, **few) == few_label_probe(*digits, **few)
    assert few_label_probe(*digits, seed=1, **few) != few_label_probe(*digits, **few)
    assert few_label_probe(*digits, draws=2, **few).accuracies == few_label_probe(*digits, **few).accuracies[:2]


@pytest.mark.parametrize("scale", [1e-30, 1e19])
def test_scale_of_the_features_does_not_count(digits, scale):
    train, train_labels, test, test_labels = digits
    scaled = (train * scale / 16, train_labels, test * scale / 16, test_labels)
    for probe, short in ((linear_probe, {"epochs": 2}), (few_label_probe, {"steps": 20})):
        got, expected = (probe(*parts, num_classes=10, **short) for parts in (scaled, digits))
        assert got.accuracy == pytest.approx(expected.accuracy, abs=0.01)


def test_class_with_too_few_examples_is_refused(digits):
    message = r"at least labels_per_class=1000 training examples of each class, got \d+ of class 0"
    with pytest.raises(UsageError, match=message):
        few_label_probe(*digits, num_classes=10, labels_per_class=1000)


def poisoned(rows, *where):
    features = np.ones((rows, 64))
    features[list(where), 3] = np.nan
    return features


@pytest.mark.parametrize("evaluate", [knn, linear_probe, few_label_probe])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {0: np.zeros((1436, 64))},
            r"train features \[n, f\] and labels \[n\] .*, got \[1436, 64\] and \[1437\]",
        ),
        ({2: np.zeros((360, 8, 8))}, r"expected test features \[n, f\] and labels .*, got \[360, 8, 8\]"),
        ({2: np.zeros((0, 64)), 3: np.zeros(0, int)}, r"with n > 0, got \[0, 64\] and \[0\]"),
        ({2: np.zeros((360, 63))}, r"features of the same size f, got \[1437, 64\] and \[360, 63\]"),
        ({1: np.full(1437, 10)}, "expected train labels from 0 to 9, got 10 to 10"),
        ({3: np.full(360, -1)}, "expected test labels from 0 to 9, got -1 to -1"),
        ({1: np.full(1437, 1.0)}, "expected train labels to be integers, got float64"),
        ({0: poisoned(1437, 7)}, "expected train features that are finite .*, got NaN or infinity in row 7 of 1437"),
        ({2: poisoned(360, *range(10, 20))}, "test features .* in rows 10, 11, 12, 13, 14 and 5 more of 360"),
        ({2: np.full((360, 64), 1e300)}, "test features that are finite in float32"),
    ],
)
def test_parts_that_do_not_fit_are_refused(digits, evaluate, change, message):
    parts = [change.get(i, part) for i, part in enumerate(digits)]
    with pytest.raises(UsageError, match=message):
        evaluate(*parts, num_classes=10)


@pytest.mark.parametrize(
    ("probe", "options", "message"),
    [
        (linear_probe, {"epochs": 0}, "expected epochs to be an integer of at least 1, got 0"),
        (linear_probe, {"batch_size": -1}, "expected batch_size to be an integer of at least 1, got -1"),
        (
            linear_probe,
            {"learning_rate": float("inf")},
            "learning_rate to be finite and greater than 0, got inf",
        ),
        (few_label_probe, {"draws": 0}, "expected draws to be an integer of at least 1, got 0"),
        (few_label_probe, {"labels_per_class": 0}, "expected labels_per_class to be an integer of at least 1, got 0"),
        (few_label_probe, {"steps": True}, "expected steps to be an integer of at least 1, got True"),
    ],
)
def test_options_out_of_range_are_refused(digits, probe, options, message):
    with pytest.raises(UsageError, match=message):
        probe(*digits, num_classes=10, **options)
