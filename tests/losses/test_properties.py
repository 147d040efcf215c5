"""Every loss on whatever embeddings a dtype can hold: its oracle's value within a stated bound, or NaN."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from tests import strategies
from tests.losses.bounds import BOUNDS, bound
from tests.losses.table import ROWS
from tests.losses.test_values import oracle

temperatures = strategies.logarithmic(0.003, 10)
HYPERPARAMETERS = {
    "temperature": temperatures,
    "scale": temperatures.map(lambda t: 1 / t),
    "slope": temperatures.map(lambda t: 1 / t),
    "bias": st.floats(-20, 20, width=32),
    "sigma": strategies.logarithmic(0.05, 10),
    "t": temperatures,
    "update_weight": st.floats(1 / 64, 63 / 64, width=32),
    "gamma": strategies.logarithmic(0.1, 100),
    "weight": strategies.logarithmic(0.1, 100),
    "num_instances": st.integers(2, 10**6),
}
# Whom a NaN in one row reaches, by default that row and all that are compared with it: those of another id.
OF_THE_BATCH = {"dcl_weighted", "sup_con", "align_uniform"}  # a mean over the batch, or positives by label: all rows
ANCHORS_U_NEGATIVES_V = {"siglip", "spectral"}
OF_NEGATIVES = {"vrns", "info_nce_based", "info_nce_based_within"}  # no term of the positive alone
ANCHORS_AND_NEGATIVES_U = {"dhel_one_sided"}
BY_MOMENTS = {"vrns", "spectral"}


@st.composite
def examples(draw):
    """A shape, and several times what is computed of it: pairs, their ids or None, hyperparameters and a NaN."""
    shape = draw(strategies.shapes)
    ids = strategies.instance_ids(shape) if draw(st.booleans()) else st.none()
    one = st.tuples(strategies.pairs(shape), ids, st.fixed_dictionaries(HYPERPARAMETERS), strategies.poisons(shape))
    return shape, draw(st.lists(one, min_size=1, max_size=strategies.MAX_BATCHES))


def of(row, hyperparameters):
    """Those that the row has; one that it has below zero stays there."""
    chosen = {name: x for name, x in hyperparameters.items() if name in row.kwargs}
    return {**chosen, "t": float(np.copysign(chosen["t"], row.kwargs["t"]))} if "t" in chosen else chosen


def compiled(row, shape):
    """The loss, compiled anew, so that what an example compiled goes with it."""
    fixed = {**row.arrays(shape.m), **row.kwargs, **row.form}
    fn = jax.jit(lambda u, v, given: row.fn(u, v, **{**fixed, **given}))

    def call(pairs, ids, hyperparameters):
        given = hyperparameters if ids is None else {**hyperparameters, "ids": jnp.asarray(ids)}
        return np.asarray(fn(*map(jnp.asarray, pairs), given), np.float64)

    return call


def reached(name, ids, poison):
    """[m] bool: the values that depend on a row."""
    name = name.removesuffix("_moments")
    own = np.arange(len(ids)) == poison.row
    others = ids != ids[poison.row]
    if name in OF_NEGATIVES and not others.any():
        return others
    if name == "vrns":  # u against the v of others
        return own if poison.view == 0 else others
    if name == "align_uniform" and not others.any():  # nothing to be uniform with
        return own
    if name in OF_THE_BATCH:
        return np.ones(len(ids), bool)
    if (name in ANCHORS_U_NEGATIVES_V and poison.view == 0) or (name in ANCHORS_AND_NEGATIVES_U and poison.view == 1):
        return own
    return own | others


def test_every_loss_has_a_bound():
    assert all(row.bound or row.loss.__name__ in BOUNDS for row in ROWS.values())


@pytest.mark.parametrize("name", ROWS)
@hypothesis.given(examples())
def test_right_within_the_bound_and_nan_where_it_belongs(name, example):
    row = ROWS[name]
    shape, batches = example
    with shape.precision:
        loss = compiled(row, shape)
        for pairs, ids, hyperparameters, poison in batches:
            options = of(row, hyperparameters)
            values = loss(pairs, ids, options)
            all_ids = np.arange(shape.m) if ids is None else ids
            allowed = bound(row, *pairs, all_ids, **options)
            error = np.abs(values - oracle(row, *pairs, ids, **options))
            assert np.all(error <= allowed), (options, np.max(error / allowed))
            wrong = reached(name, all_ids, poison)
            poisoned = poison.into(pairs)
            found = loss(poisoned, ids, options)
            # By moments a candidate counts for every anchor before it is subtracted from its own.
            seen = wrong | (np.isnan(found) if row.loss.__name__ in BY_MOMENTS and poison.view == 1 else False)
            np.testing.assert_array_equal(found, np.where(seen, np.nan, values))
            with np.errstate(invalid="ignore"):
                np.testing.assert_array_equal(np.isnan(oracle(row, *poisoned, ids, **options)), wrong)
