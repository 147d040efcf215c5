"""The analysis of embeddings against brute force in float64, its errors against many draws, and what it holds."""

import math

import numpy as np
import pytest

from contrastive_jax import metrics, theory
from contrastive_jax.errors import UsageError
from contrastive_jax.metrics import _exact_moments, _nearest, _rows
from tests.losses import oracles

N, D = 70, 5
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, N)
IDS = {
    "all differ": None,
    "twos": np.arange(N) // 2,
    "of many sizes": np.minimum(np.arange(N) // 3, 15),
    "strings": np.array([f"image{k // 5}" for k in range(N)]),
    "one instance": np.zeros(N, int),
}


def pairs(n=N, d=D, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(4, d))[np.resize(LABELS, n)] + 0.3
    u, v = center + rng.normal(size=(2, n, d)) * 0.7
    return (7 * u).astype(dtype), (v + 0.2).astype(dtype)


@pytest.fixture
def small_pieces(monkeypatch):
    """Several chunks of rows and of candidates, and groups on both sides of the limit."""
    monkeypatch.setattr(_rows, "CHUNK_ENTRIES", 11 * D)
    monkeypatch.setattr(_rows, "_MOST_ENTRIES", 11 * D)
    monkeypatch.setattr(_exact_moments, "_FEW", 3)
    monkeypatch.setattr(_nearest, "_CANDIDATES", 16)
    monkeypatch.setattr(_nearest, "_ANCHORS", 16)


def brute_force(u, v, ids):
    u, v = oracles.unit(u), oracles.unit(v)
    names = np.arange(len(u)) if ids is None else ids
    negative = names[:, None] != names[None, :]
    once = negative & np.triu(np.ones_like(negative))
    cross = np.where(negative, u @ v.T, -np.inf)
    return {
        "positive": np.sum(u * v, axis=1),
        "cross_view": (u @ v.T)[negative],
        "within_view": np.concatenate([(x @ x.T)[once] for x in (u, v)]),
        "hardest": cross.max(axis=1),
    }


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_similarities_are_those_of_all_pairs(ids, dtype):
    u, v = pairs(dtype=dtype)
    found = metrics.analyze(u, v, ids=ids, num_bins=20)
    want = brute_force(u.astype(np.float64), v.astype(np.float64), ids)
    for name in ("positive", "cross_view", "within_view"):
        kind, s = getattr(found, name), want[name]
        assert kind.histogram.counts.sum() == len(s) and not kind.histogram.standard_error.any()
        if len(s) == 0:
            assert (kind.number, kind.mean, kind.variance) == (0, 0, 0)
            continue
        assert kind.number == len(s)
        assert kind.mean == pytest.approx(s.mean(), abs=1e-13)
        assert kind.variance == pytest.approx(s.var(), abs=1e-13)
        assert [kind.histogram.least, kind.histogram.greatest] == pytest.approx([s.min(), s.max()], abs=1e-6)
        below = np.cumsum(np.histogram(s, metrics.similarity_edges(20))[0])
        assert np.abs(np.cumsum(kind.histogram.counts.astype(int)) - below).max() <= 1  # float32 at an edge
    np.testing.assert_allclose(found.hardest.similarity, want["hardest"], atol=1e-6)
    assert found.retrieval.value == np.mean(want["positive"] > want["hardest"])


def test_collapsed_embeddings_keep_their_variance():
    u, v = (100 + x.astype(np.float64) / 10 for x in pairs())
    found, s = metrics.analyze(u, v), brute_force(u, v, None)["cross_view"]
    assert s.var() < 1e-9
    assert found.cross_view.variance == pytest.approx(s.var(), rel=1e-3)


def test_moments_are_those_of_the_streamed_metric():
    u, v = pairs()
    found, streamed = metrics.analyze(u, v, ids=IDS["twos"]), metrics.negative_moments(u, v, ids=IDS["twos"])
    assert found.cross_view[:3] == pytest.approx([float(x) for x in streamed], rel=1e-5)


@pytest.mark.usefixtures("small_pieces")
def test_geometry_gap_and_classes_are_those_of_the_metrics():
    u, v = pairs()
    a, b = oracles.unit(u), oracles.unit(v)
    found = metrics.analyze(u, v, labels=LABELS)
    assert found.alignment == pytest.approx(metrics.alignment(a, b), rel=1e-12)
    assert found.gap.distance == pytest.approx(metrics.mean_gap(a, b), rel=1e-12)
    assert found.gap.u.mean() - found.gap.v.mean() == pytest.approx(found.gap.distance, rel=1e-12)
    for view, x in ((found.u, a), (found.v, b)):
        assert view.uniformity.value == pytest.approx(metrics.uniformity(x), rel=1e-5)
        assert view.wasserstein_uniformity.value == pytest.approx(metrics.wasserstein_uniformity(x), abs=1e-5)
        assert view.effective_rank == pytest.approx(metrics.effective_rank(x), rel=1e-9)
        assert view.rank == metrics.rank(x)
        np.testing.assert_allclose(view.spectrum, metrics.spectrum(x), atol=1e-14)
        assert view.mean_length == pytest.approx(np.linalg.norm(x.mean(axis=0)), rel=1e-12)
        want = metrics.class_variance(x, LABELS)
        np.testing.assert_allclose(view.classes.within, want.within, atol=1e-14)
        assert view.classes.between == pytest.approx(want.between, rel=1e-12)


def test_rows_that_cannot_be_used_are_named_and_left_out():
    u, v = pairs(dtype=np.float64)
    u[3, 1], v[4, 0], u[5], v[6] = np.nan, np.inf, 0, 0
    u[20] = u[11] = u[10]
    v[30], v[31] = 0.0, -0.0
    found = metrics.analyze(u, v)
    assert (found.num_rows, found.num_kept) == (N, N - 6)
    assert found.u.report.not_finite.tolist() == [3] and found.v.report.not_finite.tolist() == [4]
    assert found.u.report.zero.tolist() == [5] and found.v.report.zero.tolist() == [6, 30, 31]
    assert found.u.report.repeated.tolist() == [[11, 10], [20, 10]] and not len(found.v.report.repeated)
    np.testing.assert_allclose(found.v.report.norms[:3], np.linalg.norm(v[:3], axis=1), rtol=1e-14)
    kept = np.setdiff1d(np.arange(N), [3, 4, 5, 6, 30, 31])
    assert found.cross_view.mean == pytest.approx(metrics.analyze(u[kept], v[kept]).cross_view.mean, abs=1e-14)
    assert set(found.hardest.anchor) == set(kept) and set(found.hardest.negative) <= set(kept)


def test_rows_that_differ_by_signs_or_order_are_no_repeats():
    row = np.array([1.0, 2.0, 4.0, 8.0])
    rows = np.array([row * sign for sign in ([1, 1, 1, 1], [-1, -1, 1, 1], [1, 1, -1, -1], [-1, -1, -1, -1])])
    x = np.concatenate([rows, rows[:, ::-1], rows[:1]])
    assert metrics.analyze(x, x).u.report.repeated.tolist() == [[8, 0]]
    assert metrics.analyze(x, x).identical_pairs == len(x)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_scale_does_not_count(scale):
    u, v = pairs(dtype=np.float64)
    found = metrics.analyze(scale * u, scale * v)
    assert found.cross_view.mean == pytest.approx(metrics.analyze(u, v).cross_view.mean, rel=1e-12)
    assert found.u.report.norms[0] == pytest.approx(scale * np.linalg.norm(u[0]), rel=1e-12)


SAMPLED = {"exact_rows": 10, "num_blocks": 12, "block_rows": 30}


def test_standard_errors_are_those_of_many_draws():
    """Over draws of the blocks, (estimate - all pairs) / error has a spread of about 1, and no bias."""
    u, v = pairs(400)
    exact = metrics.analyze(u, v, num_bins=8, sampling=metrics.Sampling(exact_rows=400))
    scores = []
    for seed in range(24):
        found = metrics.analyze(u, v, num_bins=8, sampling=metrics.Sampling(**SAMPLED, seed=seed))
        numbers = [
            *zip(found.cross_view.histogram.share, found.cross_view.histogram.standard_error, strict=True),
            *zip(found.within_view.histogram.share, found.within_view.histogram.standard_error, strict=True),
            found.u.uniformity,
            found.v.uniformity,
            found.u.wasserstein_uniformity,
        ]
        wanted = [*exact.cross_view.histogram.share, *exact.within_view.histogram.share]
        wanted += [exact.u.uniformity.value, exact.v.uniformity.value, exact.u.wasserstein_uniformity.value]
        scores.append([(x - y) / e for (x, e), y in zip(numbers, wanted, strict=True) if y > 0.01 or y < 0])
    scores = np.array(scores)
    assert scores.shape[1] >= 10
    assert 0.6 < np.sqrt(np.mean(scores**2)) < 1.5
    assert np.abs(scores.mean(axis=0)).max() < 5 / np.sqrt(len(scores))


def test_beyond_the_stated_size_only_what_is_said_is_sampled():
    u, v = pairs(400)
    exact = metrics.analyze(u, v, labels=np.resize(LABELS, 400))
    found = metrics.analyze(u, v, labels=np.resize(LABELS, 400), sampling=metrics.Sampling(**SAMPLED, num_anchors=50))
    assert exact.sampling is None and found.sampling.block_rows == 30
    assert found.cross_view.histogram.counts.sum() == 12 * 30 * 29
    assert found.cross_view[:3] == exact.cross_view[:3] and found.within_view[:3] == exact.within_view[:3]
    np.testing.assert_array_equal(found.positive.histogram.share, exact.positive.histogram.share)
    np.testing.assert_array_equal(found.u.spectrum, exact.u.spectrum)
    assert len(found.hardest.anchor) == 50 and found.retrieval.standard_error > 0
    places = np.searchsorted(exact.hardest.anchor, found.hardest.anchor)
    np.testing.assert_allclose(found.hardest.similarity, exact.hardest.similarity[places], rtol=1e-12)  # of all rows


class Watched:
    """An array that remembers how many rows were asked for at a time, and wants them in ascending order."""

    def __init__(self, rows):
        self.rows, self.shape, self.dtype, self.asked = rows, rows.shape, rows.dtype, []

    def __getitem__(self, key):
        if not isinstance(key, slice):
            assert np.all(np.diff(key) > 0)
        self.asked.append(len(self.rows[key]))
        return self.rows[key]


@pytest.mark.parametrize("ids", [None, "labels"])
def test_never_more_rows_at_a_time_than_a_piece_has(small_pieces, ids):
    u, v = map(Watched, pairs(300))
    labels = np.resize(LABELS, 300)
    seen = []
    metrics.analyze(
        u, v, labels=labels, ids=None if ids is None else labels,
        sampling=metrics.Sampling(**SAMPLED, num_anchors=20), on_progress=lambda *call: seen.append(call),
    )  # fmt: skip
    assert max(u.asked + v.asked) == 30  # a block; a piece of 11 or 16 rows otherwise
    assert [call for call in seen if call[1] == call[2]] == [
        ("rows", 300, 300),
        ("pairs", 12, 12),
        ("nearest", 300, 300),
    ]
    assert seen == sorted(seen, key=lambda call: ["rows", "pairs", "nearest"].index(call[0]))


def test_pairs_by_label_are_one_cycle_in_each_label():
    labels = np.array(["a", "b", "a", "c", "b", "a", "d", "a", "d"])
    rows, partners = metrics.pair_by_label(labels, seed=3)
    assert rows.tolist() == [0, 1, 2, 4, 5, 6, 7, 8] and sorted(partners) == rows.tolist()
    assert np.all(labels[rows] == labels[partners]) and np.all(rows != partners)
    following, place = dict(zip(rows, partners, strict=True)), 0
    for _ in range(4):  # the four of label a
        place = following[place]
    assert place == 0
    many = np.resize(LABELS, 1000)
    assert not np.array_equal(metrics.pair_by_label(many)[1], metrics.pair_by_label(many, seed=1)[1])


def test_a_simplex_is_at_every_optimum_of_the_full_batch():
    x = theory.simplex(6, 5)
    rows = metrics.compare_with_optima(metrics.analyze(x, x), contrast_size=6)
    assert {row.reference for row in rows} >= {f"Lee 2025, Theorem 5.{k}" for k in (1, 2)} | {
        "Lee 2025, Theorem 5.5, m = 6"
    }
    assert max(row.distance for row in rows if row.reference.startswith("Lee")) < 1e-12


@pytest.mark.parametrize("which", ["least", "greatest"])
def test_the_ends_of_theorem_5_5_and_what_lies_beyond(which):
    x = theory.construct_extreme_variance(n=8, m=4, d=6, which=which)
    (row,) = [r for r in metrics.compare_with_optima(metrics.analyze(x, x), contrast_size=4) if "5.5" in r.reference]
    assert row.theory == theory.negative_variance_bounds(8, 4) and row.distance < 1e-12
    assert row.measured == pytest.approx(row.theory[which == "greatest"], rel=1e-9)
    (row,) = [r for r in metrics.compare_with_optima(metrics.analyze(x, x), contrast_size=8) if "5.5" in r.reference]
    assert row.distance == pytest.approx(row.measured)  # the full batch wants no variance


def test_a_tight_frame_is_the_best_of_more_points_than_a_simplex_has():
    x = np.concatenate([np.eye(3), -np.eye(3)])
    found = metrics.compare_with_optima(metrics.analyze(x, x))
    (row,) = [row for row in found if row.reference.startswith("tight frame")]
    assert row.distance < 1e-12 and row.measured == pytest.approx(1 / 5 - 1 / 25)


def test_the_slack_of_theorem_5_2_is_that_of_its_identity():
    u, v = map(oracles.unit, pairs())
    (row,) = [r for r in metrics.compare_with_optima(metrics.analyze(u, v), names=("a", "b")) if "5.2" in r.reference]
    half = [np.sum((u + sign * v).mean(axis=0) ** 2) / 4 for sign in (1, -1)]
    spread = np.sum(np.var(u - v, axis=0)) / 2
    assert row.distance == pytest.approx(N / (N - 1) * (sum(half) + spread), rel=1e-9)


def test_instances_with_several_pairs_have_fewer_optima():
    rows = metrics.compare_with_optima(metrics.analyze(*pairs(), ids=IDS["twos"]))
    assert not [row for row in rows if "5.2" in row.reference or "rank" in row.quantity]
    assert rows[1].theory == (-1 / (N // 2 - 1),) * 2
    assert metrics.compare_with_optima(metrics.analyze(*pairs(), ids=IDS["one instance"])) == []


def test_uniform_points_are_at_the_uniform_law():
    u, v = np.random.default_rng(1).normal(size=(2, 1500, 16))
    rows = metrics.compare_with_optima(metrics.analyze(u, v))
    of_law = [row for row in rows if row.reference == "uniform law"]
    assert len(of_law) == 5 and max(row.distance for row in of_law) < 0.02
    assert math.log(theory.expected_gaussian_energy(2.0, 16)) in [row.theory[0] for row in of_law]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.ones((4, 2))}, r"expected u and v of the same shape \[n, d\], got \[4, 2\] and \[4, 3\]"),
        ({"u": np.ones(4), "v": np.ones(4)}, r"same shape \[n, d\], got \[4\] and \[4\]"),
        ({"u": np.ones((1, 3)), "v": np.ones((1, 3))}, r"at least 2 rows of at least 2 dimensions, got \[1, 3\]"),
        ({"v": np.ones((4, 3), int)}, r"expected v of float16, float32 or float64, got int64; convert"),
        ({"u": np.ones((4, 3), complex)}, "expected u of float16, float32 or float64, got complex128"),
        ({"ids": np.arange(3)}, r"expected ids to be integers or strings of shape \[4\], got int64 of shape \[3\]"),
        ({"labels": np.ones(4)}, r"expected labels to be integers or strings of shape \[4\], got float64"),
        ({"u": np.full((4, 3), np.nan)}, "at least 2 pairs with finite rows that are not zero, got 0 of 4"),
        ({"num_bins": 0}, "expected num_bins of at least 1, got 0"),
        ({"sampling": metrics.Sampling(num_blocks=1)}, "expected num_blocks of at least 2, got 1"),
    ],
)
def test_bad_input_is_one_line(change, message):
    with pytest.raises(UsageError, match=message):
        metrics.analyze(**{"u": np.ones((4, 3)), "v": np.ones((4, 3))} | change)


def test_labels_that_are_ids_are_refused(monkeypatch):
    monkeypatch.setattr("contrastive_jax.metrics._analysis.MAX_CLASSES", 10)
    with pytest.raises(UsageError, match="at most 10 classes, got 70; leave them out"):
        metrics.analyze(*pairs(), labels=np.arange(N))


def test_a_contrast_size_beyond_the_instances_is_refused():
    with pytest.raises(UsageError, match="expected a contrast_size from 2 to n = 70, got 71"):
        metrics.compare_with_optima(metrics.analyze(*pairs()), contrast_size=71)
