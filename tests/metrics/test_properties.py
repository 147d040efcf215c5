"""Every metric on whatever embeddings a dtype can hold: its oracle's value within a stated bound, or a refusal."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from contrastive_jax import metrics, theory
from tests import strategies
from tests.losses import oracles

WITHOUT_A_VALUE = {"NegativeMoments", "PairSimilarities", "SimilarityDistribution", "Rows", "RowMoments", "RowReport"}
WITHOUT_A_VALUE |= {"Analysis", "ClassVariance", "Comparison", "Estimate", "Gap", "HardestNegatives", "Histogram"}
WITHOUT_A_VALUE |= {"KindOfPair", "Sampling", "View"}
OF_ANALYSES = {"compare_with_optima", "pair_by_label"}  # in test_analysis.py
OF_MOMENTS = {"row_moments", "merge_row_moments"}
OF_DISTRIBUTIONS = {"merge", "merge_devices", "merge_negative_moments", "select", "similarity_edges", "to_host"}
OF_UNIT_ROWS = {"alignment", "uniformity", "wasserstein_uniformity", "effective_rank", "rank"}
OF_UNIT_ROWS |= {"spectrum", "mean_gap", "class_variance"}
TESTED = OF_UNIT_ROWS | OF_MOMENTS | {"similarity_distribution", "negative_moments", "hardest_negatives", "analyze"}
BINS = 20


def test_every_metric_is_tested():
    public = {name for name in dir(metrics) if not name.startswith("_")}
    assert public == TESTED | OF_DISTRIBUTIONS | OF_ANALYSES | WITHOUT_A_VALUE


def half_epsilon(shape):
    return np.finfo(np.float64 if shape.dtype == "float64" else np.float32).eps / 2


def error_of_similarity(shape, half):
    """As in tests.losses.bounds: rounded sums of d terms, and what normalising adds."""
    return (4 + np.sqrt(shape.d)) * half


def similarities(u, v, ids):
    """Of each kind, pair by pair, in float64."""
    u, v = oracles.unit(u), oracles.unit(v)
    different = ids[:, None] != ids[None, :]
    once = np.triu(different)
    return {
        "positive": np.sum(u * v, axis=1),
        "cross_view": (u @ v.T)[different],
        "within_view": np.concatenate([(x @ x.T)[once] for x in (u, v)]),
    }


def check_distribution(got, want, shape):
    """Counts are exact but for the similarities that rounding may move over an edge."""
    finite = want[~np.isnan(want)]
    half = half_epsilon(shape)
    error = error_of_similarity(shape, half)
    edges = metrics.similarity_edges(BINS)[1:-1, None]
    below = np.cumsum(got.counts)[:-1]
    assert np.all(np.sum(finite < edges - error - 4 * half, axis=1) <= below)
    assert np.all(below <= np.sum(finite < edges + error + 4 * half, axis=1))
    assert got.counts.sum() == len(finite) and got.count == len(want)
    moments = np.array([got.mean, got.variance, got.least, got.greatest])
    if len(want) == 0:
        np.testing.assert_array_equal(moments, [0, 0, np.inf, -np.inf])
    elif len(finite) < len(want):
        assert np.isnan(moments).all()
    else:
        rounding = (8 + np.sqrt(len(want))) * half
        allowed = np.array([error + rounding, 2 * error + rounding, error, error])
        off = np.abs(moments - [want.mean(), want.var(), want.min(), want.max()])
        assert np.all(off <= allowed), off / allowed


@st.composite
def distributions(draw):
    shape = draw(strategies.shapes)
    one = st.tuples(strategies.pairs(shape), strategies.instance_ids(shape), strategies.poisons(shape))
    return shape, draw(st.lists(one, min_size=1, max_size=strategies.MAX_BATCHES))


@hypothesis.given(distributions())
def test_similarity_distribution(example):
    shape, batches = example
    with shape.precision:
        distribution = jax.jit(lambda u, v, ids: metrics.similarity_distribution(u, v, ids=ids, num_bins=BINS))
        for pairs, ids, poison in batches:
            for u, v in (pairs, poison.into(pairs)):
                got = jax.tree.map(np.asarray, distribution(jnp.asarray(u), jnp.asarray(v), jnp.asarray(ids)))
                for kind, want in similarities(u, v, ids).items():
                    check_distribution(getattr(got, kind), want, shape)


@hypothesis.given(distributions())
def test_negative_moments(example):
    """A rounding of the sums over all pairs, of which the negatives may be a part."""
    shape, batches = example
    half = half_epsilon(shape)
    with shape.precision:
        moments = jax.jit(lambda u, v, ids: metrics.negative_moments(u, v, ids=ids))
        for (u, v), ids, poison in batches:
            want = similarities(u, v, ids)["cross_view"]
            number, *got = np.asarray(moments(*map(jnp.asarray, (u, v, ids))), np.float64)
            assert number == len(want)
            if len(want) == 0:
                continue
            times = 2 * (1 + shape.m**2 / len(want))
            allowed = times * (2 * error_of_similarity(shape, half) + (8 + np.sqrt(len(want))) * half)
            assert np.all(np.abs(np.subtract(got, [want.mean(), want.var()])) <= allowed)
            u, v = poison.into(np.stack([u, v]))
            if np.isnan(similarities(u, v, ids)["cross_view"]).any():
                assert np.isnan(moments(*map(jnp.asarray, (u, v, ids)))[1:]).all()


@st.composite
def unit_pairs(draw):
    """Pairs of unit rows, as far as their dtype holds them; where there was no direction, the first axis."""
    shape = draw(strategies.shapes.filter(lambda shape: shape.dtype != "bfloat16"))
    rows = oracles.unit(draw(strategies.pairs(shape)).reshape(2 * shape.m, shape.d))
    rows[~rows.any(axis=1), 0] = 1
    return shape, rows.reshape(2, shape.m, shape.d).astype(shape.dtype), draw(strategies.poisons(shape))


many = hypothesis.settings(max_examples=5 * hypothesis.settings().max_examples)


@many
@hypothesis.given(unit_pairs(), strategies.logarithmic(0.5, 4))
def test_alignment(example, alpha):
    shape, (u, v), _ = example
    distances = np.sqrt(np.sum((u.astype(np.float64) - v.astype(np.float64)) ** 2, axis=1))
    got = metrics.alignment(u, v, alpha=alpha)
    assert got == pytest.approx(np.mean(distances**alpha), rel=(8 + shape.d) * np.finfo(np.float64).eps)


@hypothesis.given(unit_pairs(), strategies.logarithmic(0.003, 300))
def test_uniformity(example, t):
    """Computed in float32 whatever the dtype; finite however far below the smallest float its energies are."""
    shape, (x, _), _ = example
    half = np.finfo(np.float32).eps / 2
    squared = np.maximum(2 - 2 * (x.astype(np.float64) @ x.astype(np.float64).T), 0)[np.triu_indices(shape.m, 1)]
    want = -t * squared.min() + np.log(np.mean(np.exp(-t * (squared - squared.min()))))
    got = metrics.uniformity(x, t=t)
    allowed = 2 * t * error_of_similarity(shape, half) + (4 * t + 2 * np.log(shape.m)) * (8 + np.sqrt(shape.m)) * half
    assert abs(got - want) <= allowed, (got, want, abs(got - want) / allowed)


@hypothesis.given(unit_pairs())
def test_wasserstein_uniformity(example):
    """Within 0.0001, as its docstring says, and what rounding adds."""
    shape, (x, _), _ = example
    hypothesis.assume(shape.d > 1)
    x = x.astype(np.float64)
    similarity = np.sort((x @ x.T)[np.triu_indices(shape.m, 1)])
    grid = np.linspace(-1, 1, 200_001)
    middle = (grid[1:] + grid[:-1]) / 2
    empirical = np.searchsorted(similarity, middle) / len(similarity)
    want = 2 * np.mean(np.abs(empirical - theory.similarity_distribution_function(middle, shape.d)))
    allowed = 1e-4 + error_of_similarity(shape, np.finfo(np.float32).eps / 2) + 2 / 200_000
    assert abs(metrics.wasserstein_uniformity(x) - want) <= allowed


@many
@hypothesis.given(unit_pairs())
def test_ranks(example):
    """A singular value that is 0 comes out as the root of an eigenvalue's error, and adds -p log p to the entropy."""
    shape, (x, _), _ = example
    x = x.astype(np.float64)
    values = np.linalg.svd(x, compute_uv=False)
    p = values[values > 0] / values.sum()
    want, most = np.exp(-np.sum(p * np.log(p))), min(x.shape)
    stray = np.sqrt(max(x.shape) * np.finfo(np.float64).eps)
    got = metrics.effective_rank(x)
    assert abs(got - want) <= want * most * stray * (1 - np.log(stray)), (got, want)
    assert 1 - 1e-12 <= got <= most * (1 + 1e-12)
    variances = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2 / (shape.m - 1)
    least, greatest = (np.sum(variances > 1e-5 + move) for move in (1e-12, -1e-12))
    assert least <= metrics.rank(x) <= greatest


@many
@hypothesis.given(unit_pairs(), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_spread_of_rows_and_classes(example, classes, seed):
    """In float64, whatever the dtype; the spectrum to what an eigenvalue's error is."""
    shape, (u, v), _ = example
    labels = np.random.default_rng(seed).integers(0, classes, shape.m)
    x, y = u.astype(np.float64), v.astype(np.float64)
    allowed = 64 * max(shape.m, shape.d) * np.finfo(np.float64).eps
    variances = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2 / (shape.m - 1)
    want = np.pad(variances, (0, max(0, shape.d - len(variances))))[: shape.d]
    np.testing.assert_allclose(metrics.spectrum(u), want, atol=allowed)
    assert abs(metrics.mean_gap(u, v) - np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))) <= allowed
    found = metrics.class_variance(u, labels)
    parts = [x[labels == name] for name in found.classes]
    np.testing.assert_array_equal(found.number, [len(part) for part in parts])
    np.testing.assert_allclose(found.within, [np.var(part, axis=0).sum() for part in parts], atol=allowed)
    assert abs(found.total - np.var(x, axis=0).sum()) <= allowed
    assert abs(found.total - found.between - found.number @ found.within / shape.m) <= allowed


@hypothesis.given(unit_pairs(), st.integers(0, 65))
def test_moments_of_parts_are_those_of_the_whole(example, cut):
    shape, (x, _), _ = example
    merged = metrics.merge_row_moments(metrics.row_moments(x[:cut]), metrics.row_moments(x[cut:]))
    x = x.astype(np.float64)
    assert merged.number == shape.m
    np.testing.assert_allclose(merged.mean, x.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(merged.scatter, (x - x.mean(axis=0)).T @ (x - x.mean(axis=0)), atol=1e-12)


@hypothesis.given(distributions())
def test_hardest_negatives(example):
    """The similarity is float64's of the negative found, which float32 may have mistaken for the hardest."""
    shape, batches = example
    allowed = 2 * error_of_similarity(shape, np.finfo(np.float32).eps / 2)
    for (u, v), ids, poison in batches:
        found = metrics.hardest_negatives(u, v, ids=ids)
        a, b = oracles.unit(u), oracles.unit(v)
        want = np.where(ids[:, None] != ids[None, :], a @ b.T, -np.inf).max(axis=1)
        exists = np.isfinite(want)
        np.testing.assert_array_equal(found.negative >= 0, exists)
        assert np.all(ids[found.negative[exists]] != ids[exists])
        np.testing.assert_allclose(found.similarity[exists], want[exists], atol=allowed)
        np.testing.assert_allclose(found.positive, np.sum(a * b, axis=1), atol=1e-13)
        with pytest.raises(ValueError, match=f"expected finite {'uv'[poison.view]}, got NaN .* row {poison.row};"):
            metrics.hardest_negatives(*poison.into(np.stack([u, v])), ids=ids)


@hypothesis.given(distributions())
def test_analyze(example):
    """All moments in float64, of the pairs that have a direction on both sides, whatever the others hold."""
    shape, batches = example
    hypothesis.assume(shape.d > 1 and shape.dtype != "bfloat16")
    for pairs, ids, poison in batches:
        u, v = poison.into(np.stack(pairs))
        kept = [np.isfinite(x).all(axis=1) & x.any(axis=1) for x in (u, v)]
        kept = kept[0] & kept[1]
        if kept.sum() < 2:
            with pytest.raises(ValueError, match="expected at least 2 pairs with finite rows"):
                metrics.analyze(u, v, ids=ids)
            continue
        found = metrics.analyze(u, v, ids=ids, num_bins=BINS)
        assert found.num_kept == kept.sum()
        for kind, want in similarities(u[kept], v[kept], ids[kept]).items():
            got = getattr(found, kind)
            assert got.number == got.histogram.counts.sum() == len(want)
            if len(want):
                share = 1 + 2 * shape.m**2 / len(want)  # the sums are over all pairs, less those of one instance
                np.testing.assert_allclose([got.mean, got.variance], [want.mean(), want.var()], atol=1e-14 * share)


@many
@hypothesis.given(unit_pairs(), st.sampled_from(sorted(OF_UNIT_ROWS)), st.sampled_from([0, 2]))
def test_one_row_that_is_not_of_unit_norm_is_refused(example, name, factor):
    _, (x, _), poison = example
    others = {
        "alignment": lambda x: metrics.alignment(x, x),
        "mean_gap": lambda x: metrics.mean_gap(x, x),
        "class_variance": lambda x: metrics.class_variance(x, np.arange(len(x)) // 2),
    }
    metric = others.get(name, getattr(metrics, name))
    bad = x.copy()
    bad[poison.row] *= factor
    with pytest.raises(ValueError, match=f"metrics.{name}: expected unit-norm"):
        metric(bad)
    with pytest.raises(ValueError, match=f"metrics.{name}: expected unit-norm.*nan"):
        metric(poison.into(np.stack([x, x]))[poison.view])
