"""The distribution of similarities: every pair once, whatever the devices, and mergeable."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import metrics
from contrastive_jax.metrics import _similarity, _words
from contrastive_jax.pairwise import shared
from tests.mappings import AXIS, MAPPINGS

M, D, BINS = 16, 5, 20


def batch(m=M, seed=0):
    return jax.random.normal(jax.random.key(seed), (2, m, D))


def expected(u, v, ids):
    """The similarities of each kind, pair by pair, in float64."""
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in np.asarray((u, v), np.float64))
    m = range(len(u))
    return {
        "positive": [u[i] @ v[i] for i in m],
        "cross_view": [u[i] @ v[j] for i in m for j in m if ids[i] != ids[j]],
        "within_view": [x[i] @ x[j] for x in (u, v) for i in m for j in range(i + 1, len(u)) if ids[i] != ids[j]],
    }


def check(distribution, u, v, ids, dtype=jnp.uint32):
    for kind, values in expected(u, v, ids).items():
        got = getattr(distribution, kind)
        edges = metrics.similarity_edges(BINS)
        np.testing.assert_array_equal(got.counts, np.histogram(values, edges)[0], err_msg=kind)
        assert got.counts.dtype == dtype
        assert got.count == len(values) == got.counts.sum()
        moments = [np.mean(values), np.var(values), np.min(values), np.max(values)]
        np.testing.assert_allclose([got.mean, got.variance, got.least, got.greatest], moments, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ids", [np.arange(M), np.arange(M) // 2], ids=["different", "paired"])
def test_every_pair_once(ids):
    u, v = batch()
    got = jax.jit(lambda u, v: metrics.similarity_distribution(u, v, num_bins=BINS, ids=jnp.asarray(ids)))(u, v)
    check(got, u, v, ids)


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_counts_beyond_32_bits_are_two_words(implementation, monkeypatch):
    """As they are of more than 65,536 pairs; here the limit is lowered."""
    monkeypatch.setattr(_similarity, "MAX_NARROW", M**2 - 1)
    monkeypatch.setattr(shared, "DENSE_ENTRIES", 2 * M)
    u, v = batch()
    ids = jnp.asarray(np.arange(M) // 2)
    fn = functools.partial(metrics.similarity_distribution, num_bins=BINS, implementation=implementation)
    got = jax.jit(lambda u, v: fn(u, v, ids=ids))(u, v)
    assert got.cross_view.counts.shape == (2, BINS) and got.cross_view.count.shape == (2,)
    check(metrics.to_host(got), u, v, ids, jnp.uint64)


@pytest.mark.parametrize("implementation", ["blockwise", "ring"])
@pytest.mark.parametrize("mapped", MAPPINGS.values(), ids=MAPPINGS.keys())
def test_two_words_on_several_devices(mapped, implementation, monkeypatch):
    monkeypatch.setattr(_similarity, "MAX_NARROW", M**2 - 1)
    u, v = batch()
    options = {"num_bins": BINS, "implementation": implementation, "axis_name": AXIS}
    fn = mapped(lambda u, v: metrics.similarity_distribution(u, v, **options), 4)
    got = jax.jit(functools.partial(fn, out=PartitionSpec()))(u, v)
    check(metrics.to_host(got), u, v, np.arange(M), jnp.uint64)


def test_which_counts_are_two_words():
    for m, shape in ((65_536, (100,)), (65_537, (2, 100))):
        found = jax.eval_shape(metrics.similarity_distribution, *[jax.ShapeDtypeStruct((m, 1), jnp.float32)] * 2)
        assert all(kind.counts.shape == shape and kind.count.shape == shape[:-1] for kind in found)


def test_words_add_up_beyond_32_bits():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 2**40, (300, 7), np.uint64)
    words = jnp.stack([jnp.asarray(counts & 0xFFFFFFFF, jnp.uint32), jnp.asarray(counts >> 32, jnp.uint32)], axis=-2)
    total = jax.jit(lambda x: _words.add_words(x, lambda y: y.sum(axis=0), -2))(words)
    np.testing.assert_array_equal(_words.to_uint64(np.asarray(total), -2), counts.sum(axis=0))
    np.testing.assert_allclose(_words.to_float(total, jnp.float32, -2), counts.sum(axis=0), rtol=1e-6)


def test_sets_whose_pairs_32_bits_do_not_count_merge_into_two_words():
    each = jax.vmap(functools.partial(metrics.similarity_distribution, num_bins=BINS))(*batch().reshape(2, 2, 8, D))
    merged = metrics.merge(each, max_pairs=2**33)
    assert merged.cross_view.counts.shape == (2, BINS)
    for wide, narrow in zip(metrics.to_host(merged), metrics.to_host(metrics.merge(each)), strict=True):
        jax.tree.map(np.testing.assert_array_equal, wide, narrow)


def test_the_counts_add_up():
    got = jax.jit(metrics.similarity_distribution)(*batch())
    assert [int(pairs.counts.sum()) for pairs in got] == [M, M * (M - 1), M * (M - 1)]


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("mapped", MAPPINGS.values(), ids=MAPPINGS.keys())
def test_any_number_of_devices(mapped, devices):
    u, v = batch()
    ids = np.arange(M) % 13
    call = mapped(
        lambda u, v, ids: metrics.similarity_distribution(u, v, num_bins=BINS, ids=ids, axis_name=AXIS), devices
    )
    check(jax.jit(lambda *a: call(*a, out=PartitionSpec()))(u, v, jnp.asarray(ids)), u, v, ids)


@pytest.mark.parametrize(
    ("implementation", "mapping"), [("blockwise", None), ("blockwise", "shard_map"), *(("ring", x) for x in MAPPINGS)]
)
def test_every_implementation_counts_the_same(implementation, mapping, monkeypatch):
    monkeypatch.setattr(shared, "DENSE_ENTRIES", 3 * M)  # three rows at a time, which do not divide the pairs
    u, v = batch()
    ids = np.arange(M) % 13

    def distribution(u, v, ids, axis_name=None if mapping is None else AXIS):
        options = {"ids": ids, "axis_name": axis_name, "implementation": implementation}
        return metrics.similarity_distribution(u, v, num_bins=BINS, **options)

    call = distribution
    if mapping is not None:
        call = functools.partial(MAPPINGS[mapping](distribution, 4), out=PartitionSpec())
    check(jax.jit(call)(u, v, jnp.asarray(ids)), u, v, ids)


def test_blockwise_memory_does_not_grow_with_the_matrix():
    x = jax.ShapeDtypeStruct((16_384, 64), jnp.float32)
    analysis = jax.jit(metrics.similarity_distribution).lower(x, x).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < 200e6  # three matrices would be 3.2 GB


def test_ends_of_the_interval_fall_into_the_end_bins():
    u = jnp.eye(3)
    v = jnp.stack([u[0], u[1], -u[2]])
    got = jax.jit(lambda u, v: metrics.similarity_distribution(u, v, num_bins=4))(u, v)
    assert got.positive.counts.tolist() == [1, 0, 0, 2]
    assert got.cross_view.counts.tolist() == [0, 0, 6, 0]


def test_nan_falls_into_no_bin_and_is_not_lost():
    u, v = batch(48)
    u = u.at[3].set(0).at[3, 1].set(jnp.nan)
    one = jax.jit(metrics.similarity_distribution)(u, v)
    for got in (one, jax.jit(metrics.merge)(jax.tree.map(lambda x: jnp.stack([x, x]), one))):
        times = int(got.positive.count) // 48
        assert [int(x.counts.sum()) // times for x in got] == [47, 47 * 47, 48 * 47 - 47]
        assert all(np.isnan([x.mean, x.variance, x.least, x.greatest]).all() for x in got)


def test_merge_of_parts_is_the_whole():
    u, v = batch()
    each = jax.jit(jax.vmap(lambda u, v: metrics.similarity_distribution(u, v, num_bins=BINS)))
    sets = each(u.reshape(4, 4, D), v.reshape(4, 4, D))
    whole = expected(u, v, np.arange(M))
    parts = [expected(u[i : i + 4], v[i : i + 4], np.arange(4)) for i in range(0, M, 4)]
    for merged in (jax.jit(metrics.merge)(sets), metrics.merge(jax.tree.map(np.asarray, sets))):
        for kind in whole:
            values = np.concatenate([part[kind] for part in parts])
            got = getattr(merged, kind)
            np.testing.assert_array_equal(got.counts, np.histogram(values, metrics.similarity_edges(BINS))[0])
            np.testing.assert_allclose(
                [got.mean, got.variance, got.least, got.greatest],
                [values.mean(), values.var(), values.min(), values.max()],
                rtol=1e-5,
            )


def test_merge_on_the_host_counts_beyond_32_bits():
    pairs = metrics.PairSimilarities(
        counts=np.full((3, 2), 2**31, np.uint32),
        count=np.full(3, 2**32 - 1, np.uint32),
        mean=np.zeros(3, np.float32),
        variance=np.ones(3, np.float32),
        least=-np.ones(3, np.float32),
        greatest=np.ones(3, np.float32),
    )
    merged = metrics.merge(metrics.SimilarityDistribution(pairs, pairs, pairs))
    assert merged.positive.counts.tolist() == [3 * 2**31] * 2
    assert merged.positive.count == 3 * (2**32 - 1)


def test_no_pairs_are_the_identity_of_merge():
    u, v = batch()
    one = jax.jit(metrics.similarity_distribution)(u, v)
    none = metrics.select(one, jnp.bool_(False))
    merged = jax.jit(metrics.merge)(jax.tree.map(lambda *x: jnp.stack(x), one, none))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), merged, one)
    alone = jax.jit(metrics.similarity_distribution)(u, v, ids=jnp.zeros(M, jnp.int32))
    assert alone.cross_view.count == 0 and alone.cross_view.mean == 0 and alone.cross_view.least == np.inf


def test_carries_no_gradient():
    u, v = batch()
    grad = jax.jit(jax.grad(lambda u: metrics.similarity_distribution(u, v).cross_view.variance))(u)
    assert not grad.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, v: metrics.similarity_distribution(u, v[:3]), r"\(16, 5\) and \(3, 5\)"),
        (lambda u, v: metrics.similarity_distribution(u, v, num_bins=0), "num_bins >= 1.*0"),
        (
            lambda u, v: metrics.similarity_distribution(u, v, implementation="x"),
            "expected implementation 'dense', 'blockwise', 'ring'.*got 'x'",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(*batch())
