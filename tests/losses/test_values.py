"""Every loss against the authors' numbers, the float64 oracle, its definition, and its own derivatives."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses.table import AUTHORS, CASES, ROWS, TEMPERATURE

every_loss = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


@functools.cache
def loss(row):
    """The loss of a row, compiled once for each shape. What it is given is traced; the row fills in the rest."""
    return jax.jit(lambda u, v, **given: row.fn(u, v, **{**row.arrays(u.shape[0]), **row.kwargs, **row.form, **given}))


def oracle(row, u, v, ids=None, **given):
    u, v = np.asarray(u), np.asarray(v)
    ids = np.arange(len(u)) if ids is None else ids
    return row.oracle(u, v, ids, **{**row.arrays(len(u)), **row.kwargs, **given})


def batch(m, d, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), (2, m, d)).astype(dtype)


def relative_error(got, want):
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want)


def test_every_loss_has_a_row():
    public = {name for name, x in vars(losses).items() if not name.startswith("_") and not inspect.ismodule(x)}
    assert public == {row.loss.__name__ for row in ROWS.values()}


def test_every_value_of_the_authors_is_used():
    names = {key.split("/")[1] for key in AUTHORS.files if key.startswith("c0/") and key.endswith("/value")}
    assert names == {setting.name for row in ROWS.values() for setting in row.authors(*CASES[0])}


by_the_authors = {name: row for name, row in ROWS.items() if row.authors(*CASES[0])}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize(("case", "meta"), CASES, ids=lambda x: str(x) if isinstance(x, int) else f"m{x['m']}")
@pytest.mark.parametrize("row", by_the_authors.values(), ids=by_the_authors.keys())
def test_authors_values(row, case, meta, dtype, tolerance, x64):
    u, v = (jnp.asarray(AUTHORS[f"c{case}/{x}"], dtype) for x in "uv")

    @jax.jit
    def value_and_grads(u, v, options):
        return jax.value_and_grad(lambda u, v: loss(row)(u, v, **options).mean(), argnums=(0, 1))(u, v)

    for name, options, factor in row.authors(case, meta):
        value, grads = value_and_grads(u, v, options)
        assert value.dtype == jnp.dtype(dtype)
        for what, got in {"value": value, "grad_u": grads[0], "grad_v": grads[1]}.items():
            assert relative_error(factor * got, AUTHORS[f"c{case}/{name}/{what}"]) < tolerance, (name, what)


@pytest.mark.parametrize(("m", "d"), [(2, 1), (2, 3), (5, 2), (33, 17)])
@every_loss
def test_oracle(row, m, d):
    u, v = batch(m, d)
    got = loss(row)(u, v)
    assert got.shape == (m,) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, oracle(row, u, v), rtol=1e-5, atol=1e-5)


@every_loss
def test_equal_ids_are_never_negatives(row):
    u, v = batch(9, 4)
    ids = np.array([3, 1, 3, 7, 7, 7, 2, 0, 5], np.int32)
    got = loss(row)(u, v, ids=ids)
    np.testing.assert_allclose(got, oracle(row, u, v, ids), rtol=1e-5, atol=1e-5)
    assert not np.allclose(got, oracle(row, u, v), rtol=1e-3)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS.values() if row.numeric_gradient],
    ids=[name for name, row in ROWS.items() if row.numeric_gradient],
)
def test_gradients(row, x64):
    """Forward, reverse and forward over reverse, along random directions, against central differences.

    Compiling second derivatives takes seconds: variants go without, one loss of each reduction has every order of them.
    """
    x = batch(6, 5, dtype=jnp.float64)
    a, b = jax.random.normal(jax.random.key(1), (2, *x.shape), jnp.float64)
    step = 1e-5

    @jax.jit
    def derivatives(x):
        def value(x):
            return loss(row)(*x).sum()

        def forward(x):
            return jax.jvp(value, (x,), (a,))[1]

        def reverse(x):
            return jnp.vdot(jax.grad(value)(x), a)

        def difference(fn, direction):
            ends = jax.vmap(fn)(jnp.stack([x + step * direction, x - step * direction]))
            return (ends[0] - ends[1]) / (2 * step)

        if row.variant:
            return (([forward(x), reverse(x)], difference(value, a)),)
        second = [jax.jvp(reverse, (x,), (b,))[1]]
        if row in (ROWS["simclr"], ROWS["kcl_gaussian"]):
            second += [jax.jvp(forward, (x,), (b,))[1], *(jnp.vdot(jax.grad(fn)(x), b) for fn in (forward, reverse))]
        return ([forward(x), reverse(x)], difference(value, a)), (second, difference(reverse, b))

    for got, want in derivatives(x):
        np.testing.assert_allclose(got, np.broadcast_to(want, len(got)), rtol=1e-5, atol=1e-5)


def test_weights_of_dcl_have_mean_one_and_carry_no_gradient(x64):
    u, v = batch(6, 5, dtype=jnp.float64)
    positive = jnp.sum(u * v, -1) / jnp.linalg.norm(u, axis=-1) / jnp.linalg.norm(v, axis=-1)

    @jax.jit
    def values_and_grads(u, v):
        plain, plain_pullback = jax.vjp(lambda u, v: losses.dcl(u, v, **TEMPERATURE), u, v)
        weighted, pullback = jax.vjp(lambda u, v: losses.dcl(u, v, sigma=0.5, **TEMPERATURE), u, v)
        weights = 1 + (plain - weighted) / (positive / 0.2)

        def of_positives(u, v):
            cosine = jnp.sum(u * v, -1) / jnp.linalg.norm(u, axis=-1) / jnp.linalg.norm(v, axis=-1)
            return (1 - weights) * cosine / 0.2

        ones = jnp.ones_like(plain)
        extra = jax.vjp(of_positives, u, v)[1](ones)
        return weights, pullback(ones), jax.tree.map(jnp.add, plain_pullback(ones), extra)

    weights, got, want = values_and_grads(u, v)
    np.testing.assert_allclose(np.mean(weights), 1, rtol=1e-10)
    assert np.std(weights) > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


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


def member(psi, **kinds):
    return lambda u, v, m: losses.info_nce_based(u, v, phi=lambda x: jnp.exp(x / 0.2), psi=psi, **kinds)


MEMBERS = {  # Lee 2025: each named loss as a member of its family
    "info_nce": member(jnp.log1p),
    "simclr": member(jnp.log1p, within_view=True),
    "dcl": member(jnp.log, within_view=True),
    "dhel_mean": member(jnp.log, cross_view=False, within_view=True),
    "spectral": lambda u, v, m: losses.independently_additive(u, v, phi=lambda x: x, psi=jnp.square),
    "siglip": lambda u, v, m: losses.independently_additive(
        u, v, phi=lambda x: -jnp.log1p(jnp.exp(-10 * x + 10)), psi=lambda x: (m - 1) * jnp.log1p(jnp.exp(10 * x - 10))
    ),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_named_losses_equal_their_general_form(name, x64):
    m = 7
    u, v = batch(m, 4, dtype=jnp.float64)

    def values_and_grads(fn):
        values, pullback = jax.vjp(fn, u, v)
        return values, *pullback(jnp.arange(1.0, m + 1))

    got, want = jax.jit(
        lambda: [values_and_grads(f) for f in (lambda u, v: MEMBERS[name](u, v, m), loss(ROWS[name]))]
    )()
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_dhel_forms_weigh_uniformity_differently():
    u, v = batch(7, 4)
    positive = jnp.sum(u * v, -1) / jnp.linalg.norm(u, axis=-1) / jnp.linalg.norm(v, axis=-1) / 0.2
    mean, both = (loss(ROWS[f"dhel_{form}"])(u, v) + positive for form in ("mean", "sum"))
    np.testing.assert_allclose(both, 2 * mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("many", "two"),
    [
        (functools.partial(losses.multi_view_info_nce, form="pairwise"), losses.info_nce),
        *(
            (functools.partial(losses.multi_view_dhel, form=form), functools.partial(losses.dhel, form=form))
            for form in ("sum", "mean")
        ),
    ],
)
def test_two_views_of_many_are_a_pair(many, two):
    u, v = batch(7, 4)
    ids = jnp.array([0, 1, 2, 0, 4, 5, 4])
    got, want = jax.jit(lambda u, v: (many(jnp.stack([u, v]), ids=ids), two(u, v, ids=ids)))(u, v)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_joint_multi_view_info_nce_is_never_below_info_nce():
    u, v = batch(33, 17)
    gap = jax.jit(lambda u, v: losses.multi_view_info_nce(jnp.stack([u, v]), form="joint") - losses.info_nce(u, v))(
        u, v
    )
    assert np.all(gap > -1e-6) and np.max(gap) > 1e-3


@pytest.mark.parametrize("fn", [losses.multi_view_info_nce, losses.multi_view_dhel])
def test_order_of_views_is_irrelevant(fn):
    views = jax.random.normal(jax.random.key(0), (4, 5, 3))
    fn = jax.jit(fn)
    np.testing.assert_allclose(fn(views[jnp.array([2, 0, 3, 1])]), fn(views), rtol=1e-5)


def test_sup_con_with_a_label_for_each_instance_is_simclr():
    u, v = batch(9, 4)
    got = jax.jit(losses.sup_con)(u, v, jnp.arange(9)[::-1] * 7, temperature=0.3)
    np.testing.assert_allclose(got, loss(ROWS["simclr"])(u, v, temperature=0.3), rtol=1e-5)


@every_loss
def test_permutation_of_pairs_and_swap_of_views(row):
    u, v = batch(33, 17)
    order = jax.random.permutation(jax.random.key(1), 33)
    values = loss(row)(u, v)
    arrays = {name: x[order] for name, x in row.arrays(33).items()}
    np.testing.assert_allclose(loss(row)(u[order], v[order], **arrays), values[order], rtol=2e-5, atol=1e-6)
    swapped = loss(row)(v, u)
    if row.symmetric:
        np.testing.assert_allclose(swapped, values, rtol=2e-5, atol=1e-6)
    else:
        assert not np.allclose(swapped, values, rtol=1e-3)


@every_loss
def test_scale_of_the_embeddings_is_irrelevant(row):
    u, v = batch(33, 17)
    values = loss(row)(u, v)
    for factor in (1e-20, 1e20):
        np.testing.assert_allclose(loss(row)(u * factor, v * factor), values, rtol=1e-5, atol=1e-6)


with_hyperparameters = {name: row for name, row in ROWS.items() if row.kwargs}


@pytest.mark.parametrize("row", with_hyperparameters.values(), ids=with_hyperparameters.keys())
def test_hyperparameters_may_be_traced_and_swept(row):
    u, v = batch(5, 2)
    values = {name: jnp.array([value, 3 * value], jnp.float32) for name, value in row.kwargs.items()}
    swept = jax.jit(jax.vmap(lambda h: loss(row)(u, v, **h)))(values)
    np.testing.assert_allclose(swept[0], loss(row)(u, v), rtol=1e-5, atol=1e-6)
    tripled = {name: 3 * value for name, value in row.kwargs.items()}
    np.testing.assert_allclose(swept[1], oracle(row, u, v, **tripled), rtol=1e-5, atol=1e-5)
