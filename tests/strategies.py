"""Embeddings at the edges of what their dtype holds, drawn by the property tests."""

import contextlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from contrastive_jax import jax_versions

EXPONENTS = {"float32": (-20, 20), "bfloat16": (-20, 20), "float16": (-6, 4), "float64": (-20, 20)}
MAX_BATCHES = 8  # of one shape: a shape has to be compiled, another batch of it has not
_MAX_EDITS = 8


class Shape(NamedTuple):
    m: int
    d: int
    dtype: str

    @property
    def precision(self):
        """A context in which JAX holds the dtype."""
        return jax_versions.enable_x64() if self.dtype == "float64" else contextlib.nullcontext()


class Poison(NamedTuple):
    """Where a NaN is put: the view, the instance and the dimension."""

    view: int
    row: int
    column: int

    def into(self, pairs):
        pairs = pairs.copy()
        pairs[self] = np.nan
        return pairs


shapes = st.builds(Shape, st.integers(2, 65), st.integers(1, 130), st.sampled_from(list(EXPONENTS)))


def logarithmic(least, greatest):
    """Floats that float32 holds, as many in each decade."""
    return st.floats(np.log(least), np.log(greatest)).map(lambda x: float(np.float32(np.exp(x))))


def poisons(shape):
    return st.builds(Poison, st.integers(0, 1), st.integers(0, shape.m - 1), st.integers(0, shape.d - 1))


@st.composite
def pairs(draw, shape):
    """[2, m, d]: rows of all scales, some of them duplicates, antipodes or zero, within a view and across the two."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = np.clip(rng.normal(size=(2 * shape.m, shape.d)), -4, 4)  # so that 1e4 of them fits float16
    row = st.integers(0, 2 * shape.m - 1)
    for to, of, factor in draw(st.lists(st.tuples(row, row, st.sampled_from([1, -1, 0])), max_size=_MAX_EDITS)):
        rows[to] = factor * rows[of]
    least, greatest = sorted(draw(st.tuples(*[st.integers(*EXPONENTS[shape.dtype])] * 2)))
    rows *= 10.0 ** rng.integers(least, greatest + 1, (2 * shape.m, 1))
    return rows.reshape(2, shape.m, shape.d).astype(jnp.dtype(shape.dtype))


@st.composite
def instance_ids(draw, shape):
    """[m] int32, some of them equal, perhaps all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, draw(st.integers(1, shape.m)), shape.m, np.int32)
