"""Every loss against the authors' numbers, the float64 oracle, its definition, and its own derivatives."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from contrastive_jax import losses
from tests.losses.table import ROWS

AUTHORS = np.load(Path(__file__).parent / "authors_values.npz")
CASES = list(enumerate(json.loads(str(AUTHORS["meta"]))))
every_loss = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def loss(row, **options):
    return jax.jit(lambda u, v: row.fn(u, v, **{**row.kwargs, **row.form, **options}))


def batch(m, d, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), (2, m, d)).astype(dtype)


def relative_error(got, want):
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want)


def test_every_loss_has_a_row():
    public = {name for name in dir(losses) if not name.startswith("_")}
    assert public == {row.fn.__name__ for row in ROWS.values()}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize(("case", "meta"), CASES, ids=lambda x: str(x) if isinstance(x, int) else f"m{x['m']}")
@every_loss
def test_authors_values(row, case, meta, dtype, tolerance, x64):
    for name, options in authors_settings(row, case, meta):
        check_authors_values(row, f"c{case}/{name}/", case, options, dtype, tolerance)


def authors_settings(row, case, meta):
    """Names in the file, with the hyperparameters they stand for."""
    if "temperature" in row.kwargs:
        return [(row.authors, {"temperature": meta["temperature"]})]
    sizes = {int(x) for x in re.findall(rf"c{case}/lee\.vrn\[n=(\d+)\]/value", " ".join(AUTHORS.files))}
    assert len(sizes) == 2
    return [(f"lee.vrn[n={n}]", {"num_instances": n}) for n in sizes]


def check_authors_values(row, prefix, case, options, dtype, tolerance):
    u, v = (jnp.asarray(AUTHORS[f"c{case}/{x}"], dtype) for x in "uv")
    value, grads = jax.jit(jax.value_and_grad(lambda u, v: loss(row, **options)(u, v).mean(), argnums=(0, 1)))(u, v)
    assert value.dtype == jnp.dtype(dtype)
    assert relative_error(value, AUTHORS[prefix + "value"]) < tolerance
    assert relative_error(grads[0], AUTHORS[prefix + "grad_u"]) < tolerance
    assert relative_error(grads[1], AUTHORS[prefix + "grad_v"]) < tolerance


@pytest.mark.parametrize(("m", "d"), [(2, 1), (2, 3), (5, 2), (33, 17)])
@every_loss
def test_oracle(row, m, d):
    u, v = batch(m, d)
    got = loss(row)(u, v)
    assert got.shape == (m,) and got.dtype == jnp.float32
    want = row.oracle(u, v, np.arange(m), **row.kwargs)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@every_loss
def test_equal_ids_are_never_negatives(row):
    u, v = batch(9, 4)
    ids = np.array([3, 1, 3, 7, 7, 7, 2, 0, 5], np.int32)
    got = loss(row, ids=jnp.asarray(ids))(u, v)
    np.testing.assert_allclose(got, row.oracle(u, v, ids, **row.kwargs), rtol=1e-5, atol=1e-5)
    assert not np.allclose(got, loss(row)(u, v), rtol=1e-3)


@every_loss
def test_gradients(row, x64):
    u, v = batch(6, 5, dtype=jnp.float64)
    check_grads(
        jax.jit(lambda u, v: loss(row)(u, v).sum()), (u, v), order=2, modes=["fwd", "rev"], rtol=1e-4, atol=1e-4
    )


DEFINITIONS = {  # Lee 2025, Definition 3.1: psi, c1, c2 with phi(x) = exp(x / t)
    "info_nce": (np.log1p, 1, 0),
    "simclr": (np.log1p, 1, 1),
    "dcl": (np.log, 1, 1),
    "dhel_mean": (np.log, 0, 1),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_general_form_of_the_family(name):
    psi, c1, c2 = DEFINITIONS[name]
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in np.asarray(batch(7, 4), np.float64))
    t = ROWS[name].kwargs["temperature"]

    def one_sided(u, v):
        rows = []
        for i in range(len(u)):
            others = np.arange(len(u)) != i
            cross = np.exp((v[others] - v[i]) @ u[i] / t).sum()
            within = np.exp((u[others] - v[i]) @ u[i] / t).sum()
            rows.append(psi(c1 * cross + c2 * within))
        return np.mean(rows)

    want = one_sided(u, v) / 2 + one_sided(v, u) / 2
    got = loss(ROWS[name])(jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32)).mean()
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_dhel_forms_weigh_uniformity_differently():
    u, v = batch(8, 4)
    positive = jnp.sum(u * v, -1) / jnp.linalg.norm(u, axis=-1) / jnp.linalg.norm(v, axis=-1) / 0.2
    mean, both = (losses.dhel(u, v, temperature=0.2, form=form) + positive for form in ("mean", "sum"))
    np.testing.assert_allclose(both, 2 * mean, rtol=1e-5)


@every_loss
def test_permutation_of_pairs_and_swap_of_views(row):
    u, v = batch(12, 6)
    order = jax.random.permutation(jax.random.key(1), 12)
    fn = loss(row)
    values = fn(u, v)
    np.testing.assert_allclose(fn(u[order], v[order]), values[order], rtol=2e-5, atol=1e-6)
    swapped = fn(v, u)
    if row.symmetric:
        np.testing.assert_allclose(swapped, values, rtol=2e-5, atol=1e-6)
    else:
        assert not np.allclose(swapped, values, rtol=1e-3)


@every_loss
def test_scale_of_the_embeddings_is_irrelevant(row):
    u, v = batch(5, 6)
    fn = loss(row)
    values = fn(u, v)
    for factor in (1e-20, 1e20):
        np.testing.assert_allclose(fn(u * factor, v * factor), values, rtol=1e-5, atol=1e-6)


@every_loss
def test_hyperparameters_may_be_traced_and_swept(row):
    u, v = batch(5, 6)
    name, value = next(iter(row.kwargs.items()))
    values = jnp.array([value, 3 * value], jnp.float32)
    swept = jax.jit(jax.vmap(lambda h: loss(row, **{name: h})(u, v)))(values)
    np.testing.assert_allclose(swept[0], loss(row)(u, v), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(swept[1], loss(row, **{name: 3 * value})(u, v), rtol=1e-5, atol=1e-6)


BAD_INPUT = {
    "rank": (lambda fn, u, v: fn(u[0], v[0]), r"\[m, d\]"),
    "shapes": (lambda fn, u, v: fn(u, v[:3]), r"\(4, 3\).*\(3, 3\)"),
    "one_pair": (lambda fn, u, v: fn(u[:1], v[:1]), "m >= 2.*got 1"),
    "integers": (lambda fn, u, v: fn(u.astype(int), v), "float dtype.*int32"),
    "ids_shape": (lambda fn, u, v: fn(u, v, ids=jnp.arange(3)), r"integers of shape \(4,\).*\(3,\)"),
    "ids_dtype": (lambda fn, u, v: fn(u, v, ids=jnp.ones(4)), "integers.*float32"),
    "implementation": (lambda fn, u, v: fn(u, v, implementation="magic"), "'magic' is unknown; give one of 'dense'"),
}


@pytest.mark.parametrize(("call", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
@every_loss
def test_bad_input(row, call, message):
    def fn(u, v, **options):
        return jax.eval_shape(loss(row, **options), u, v)  # raised at trace time

    with pytest.raises(ValueError, match=message):
        call(fn, *batch(4, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, v: losses.simclr(u, v, temperature=0.0), "temperature above 0.*0.0"),
        (lambda u, v: losses.dcl(u, v, temperature=-1), "temperature above 0.*-1"),
        (lambda u, v: losses.info_nce(u, v, temperature=jnp.ones(3)), r"scalar temperature.*\(3,\)"),
        (lambda u, v: losses.dhel(u, v, form="both"), "'both' is unknown.*'one_sided'"),
        (lambda u, v: losses.vrns(u, v, num_instances=1), "at least 2; got 1"),
    ],
)
def test_bad_hyperparameters(call, message):
    with pytest.raises(ValueError, match=message):
        call(*batch(4, 3))
