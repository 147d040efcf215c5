"""Alignment, uniformity and rank of a set of unit-norm embeddings."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from contrastive_jax import theory
from contrastive_jax.metrics._moments import entropy_rank, row_moments, spectrum_of

_UNIT_NORM_TOLERANCE = 1e-3
_BLOCK = 1024
_BINS = 16_384


def alignment(u: ArrayLike, v: ArrayLike, *, alpha: float = 2.0) -> float:
    r"""How far apart positive pairs are, the mean of \|u_i - v_i\|^alpha; 0 is perfect.

    Args:
      u: [m, d] unit-norm embeddings of one view.
      v: [m, d] of the other view.
      alpha: power of the distance.

    Returns:
      A Python float in [0, 2^alpha].

    Raises:
      ValueError: for shapes that differ or embeddings that are not unit-norm.

    Example:
      >>> metrics.alignment(np.eye(2), -np.eye(2))
      4.0

    References:
      Wang and Isola, 2020, https://arxiv.org/abs/2005.10242.
    """
    a, b = check_unit_rows("alignment", u), check_unit_rows("alignment", v)
    if a.shape != b.shape:
        raise ValueError(f"metrics.alignment: expected u and v of the same shape, got {a.shape} and {b.shape}.")
    return float(np.mean(np.linalg.norm(a.astype(np.float64) - b, axis=1) ** alpha))


def uniformity(x: ArrayLike, *, t: float = 2.0) -> float:
    r"""How evenly embeddings fill the sphere, log of the mean over distinct pairs of exp(-t r^2); lower is more even.

    Args:
      x: [n, d] unit-norm embeddings of one view.
      t: the Gaussian's parameter.

    Returns:
      A Python float; its minimum is about the log of `theory.expected_gaussian_energy(t, d)`.

    Raises:
      ValueError: for fewer than two embeddings, or some that are not unit-norm.

    Example:
      >>> round(metrics.uniformity(np.eye(2), t=2.0), 4)
      -4.0

    References:
      Wang and Isola, 2020, https://arxiv.org/abs/2005.10242. Memory is linear in n.
    """
    unit = check_unit_rows("uniformity", x)
    log_sums = _over_pairs(_log_energies, unit, t, combine=np.logaddexp)
    return float(np.logaddexp.reduce(log_sums) - np.log(len(unit) * (len(unit) - 1) / 2))


def wasserstein_uniformity(x: ArrayLike) -> float:
    r"""Distance of the similarities of distinct pairs from those of uniform points: W1, in units of similarity.

    .. math:: W_1 = \int_{-1}^{1} |F_{\text{empirical}}(s) - F_{\text{uniform}}(s)|\, ds

    with the exact distribution function of the uniform law (a Beta law), so that the result is deterministic. The
    authors' code compares with the distances of 10,000 random points, in 128 dimensions whatever d is. The empirical
    similarities are counted in 16,384 bins, whose width bounds the error by 0.0001.

    Args:
      x: [n, d] unit-norm embeddings of one view, d >= 2.

    Returns:
      A Python float; 0 is uniform.

    Raises:
      ValueError: for fewer than two embeddings, d < 2, or embeddings that are not unit-norm.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(1000, 16))
      >>> metrics.wasserstein_uniformity(x / np.linalg.norm(x, axis=1, keepdims=True)) < 0.01
      True

    References:
      Koromilas et al., 2024, Section 7.
    """
    unit = check_unit_rows("wasserstein_uniformity", x)
    return distance_from_uniform(count_similarities(unit), unit.shape[1])


def effective_rank(x: ArrayLike) -> float:
    r"""exp of the entropy of the singular values divided by their sum (RankMe).

    Args:
      x: [n, d] unit-norm embeddings.

    Returns:
      A Python float in [1, min(n, d)].

    Raises:
      ValueError: for embeddings that are not unit-norm.

    Example:
      >>> round(metrics.effective_rank(np.eye(4)), 6)
      4.0

    References:
      Garrido et al., 2023, https://arxiv.org/abs/2210.02885. The authors of Koromilas 2024 add 1e-7 to each
      normalised singular value; here 0 log 0 is 0, which differs by less than 1e-5 d.
    """
    return entropy_rank(np.linalg.eigvalsh(_gram(check_unit_rows("effective_rank", x))))


def rank(x: ArrayLike, *, tolerance: float = 1e-5) -> int:
    """Number of dimensions that the embeddings span: the rank of their covariance.

    Args:
      x: [n, d] unit-norm embeddings.
      tolerance: the smallest eigenvalue of the covariance that counts.

    Returns:
      A Python int in [0, d].

    Raises:
      ValueError: for embeddings that are not unit-norm.

    Example:
      >>> metrics.rank(np.eye(4))
      3

    References:
      Koromilas et al., 2024, Section 7.
    """
    return int(np.sum(spectrum_of(row_moments(check_unit_rows("rank", x))) > tolerance))


def spectrum(x: ArrayLike) -> np.ndarray:
    r"""Variances of the embeddings along their principal axes: the eigenvalues of their covariance, descending.

    Their sum is n/(n-1) times 1 less the squared length of the mean. A few large ones and a tail near 0
    are a collapse of dimensions.

    Args:
      x: [n, d] unit-norm embeddings.

    Returns:
      float64 [d], at least 0; about 1/d each for uniform points.

    Raises:
      ValueError: for embeddings that are not unit-norm.

    Example:
      >>> metrics.spectrum(np.array([[1.0, 0.0], [-1.0, 0.0]])).tolist()
      [2.0, 0.0]

    References:
      Jing et al., 2022, https://arxiv.org/abs/2110.09348, Figure 1.
    """
    return spectrum_of(row_moments(check_unit_rows("spectrum", x)))


def mean_gap(u: ArrayLike, v: ArrayLike) -> float:
    r"""Distance of the means of two sets, \|mean(u) - mean(v)\|: of images and texts, the modality gap.

    Args:
      u: [n, d] unit-norm embeddings of one set.
      v: [m, d] of the other.

    Returns:
      A Python float in [0, 2]; 0 at every optimum of Lee 2025, Theorem 5.1.

    Raises:
      ValueError: for dimensions that differ or embeddings that are not unit-norm.

    Example:
      >>> metrics.mean_gap(np.eye(2), -np.eye(2)).__round__(4)
      1.4142

    References:
      Liang et al., 2022, https://arxiv.org/abs/2203.02053, Section 4.1.
    """
    a, b = (check_unit_rows("mean_gap", x) for x in (u, v))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"metrics.mean_gap: expected u and v of the same d, got {a.shape} and {b.shape}.")
    return float(np.linalg.norm(a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)))


def count_similarities(unit: np.ndarray) -> np.ndarray:
    """The similarities of distinct pairs in fine equal bins over [-1, 1]: float64, whole numbers."""
    return _over_pairs(_counts, unit)


def distance_from_uniform(counts: np.ndarray, d: int) -> float:
    """W1 of the similarities that `count_similarities` counted from those of uniform points in d dimensions."""
    edges = np.linspace(-1, 1, len(counts) + 1)
    empirical = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    gap = np.abs(empirical - theory.similarity_distribution_function(edges, d))
    return float(np.sum((gap[1:] + gap[:-1]) / 2) * (2 / len(counts)))


def _gram(x: np.ndarray) -> np.ndarray:
    """The smaller of the two products of x with itself, float64: its eigenvalues are the squared singular values."""
    x = x.astype(np.float64)
    return x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T


def check_unit_rows(function: str, x: ArrayLike) -> np.ndarray:
    """Unit rows [n >= 2, d] as float32, or float64 where they are; refused if they are not of unit norm."""
    array = np.asarray(x)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(f"metrics.{function}: expected embeddings [n >= 2, d], got shape {array.shape}.")
    array = array if array.dtype == np.float64 else array.astype(np.float32)
    norms = np.linalg.norm(array, axis=1)
    if not np.abs(norms - 1).max() <= _UNIT_NORM_TOLERANCE:
        raise ValueError(
            f"metrics.{function}: expected unit-norm embeddings, got norms from {norms.min():.6g} to "
            f"{norms.max():.6g}; divide each by its norm first (`pairwise.normalize`)."
        )
    return array


def _over_pairs(fn: Callable, x: np.ndarray, *args: float, combine: Callable = np.add) -> np.ndarray:
    """Combine fn over blocks of the similarity matrix that hold each distinct pair once; memory O(block^2).

    `combine` joins two values of fn; by default it adds them.
    """
    size = min(_BLOCK, len(x))
    starts = range(0, len(x), size)
    blocks = {s: np.pad(x[s : s + size], ((0, max(0, s + size - len(x))), (0, 0))) for s in starts}
    parts = (fn(blocks[i], blocks[j], i, j, len(x), *args) for i in starts for j in starts if i <= j)
    return functools.reduce(combine, (np.asarray(part, np.float64) for part in parts))


def _similarities(rows: jax.Array, columns: jax.Array, i: int, j: int, n: int) -> tuple[jax.Array, jax.Array]:
    """[block, block] similarities, and a mask of the pairs that this block counts."""
    similarity = jnp.matmul(rows, columns.T, precision="highest")
    row = i + jnp.arange(len(rows), dtype=jnp.int32)[:, None]
    column = j + jnp.arange(len(columns), dtype=jnp.int32)[None, :]
    return similarity, (row < column) & (column < n)


@jax.jit
def _log_energies(rows: jax.Array, columns: jax.Array, i: int, j: int, n: int, t: float) -> jax.Array:
    similarity, keep = _similarities(rows, columns, i, j, n)
    return jax.nn.logsumexp(jnp.where(keep, -t * jnp.maximum(2 - 2 * similarity, 0), -jnp.inf), axis=1)


@jax.jit
def _counts(rows: jax.Array, columns: jax.Array, i: int, j: int, n: int) -> jax.Array:
    similarity, keep = _similarities(rows, columns, i, j, n)
    bins = jnp.clip(jnp.floor((similarity + 1) * (_BINS / 2)), 0, _BINS - 1).astype(jnp.int32)
    return jnp.zeros(_BINS, jnp.uint32).at[bins.reshape(-1)].add(keep.reshape(-1).astype(jnp.uint32))
