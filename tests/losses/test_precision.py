"""Every product of a loss and of its gradient has the precision that is asked for; by default the highest."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from contrastive_jax import losses, pairwise
from contrastive_jax.pairwise import shared
from tests.losses.table import ROWS
from tests.mappings import AXIS, MAPPINGS

M, D = 16, 6
X3 = lax.DotAlgorithmPreset.BF16_BF16_F32_X3
# The text of a product: its precision, its algorithm if it has one, and its shapes.
PRODUCT = re.compile(r"dot_general .*precision = \[(\w+), \1\](?:, algorithm = <(.*?)>)? : (.*)")


def lower(row, implementation=None, **options):
    """The lowered text of value and gradient: in tiles of at most 4 rows, on 8 devices for a ring."""
    axis_name = AXIS if implementation == "ring" else None
    options |= {} if implementation is None else {"implementation": implementation}

    def mean(u, v, ids, *arrays):
        given = {**dict(zip(row.arrays(M), arrays, strict=True)), **row.kwargs, **row.form, **options}
        value = row.fn(u, v, ids=ids, axis_name=axis_name, **given).mean()
        return value if axis_name is None else jax.lax.pmean(value, axis_name)

    if axis_name is not None:
        mean = functools.partial(MAPPINGS["shard_map"](mean, 8), out=PartitionSpec())
    x = jax.ShapeDtypeStruct((M, D), jnp.float32)
    arrays = [jnp.asarray(x) for x in row.arrays(M).values()]
    given = (x, x, jnp.arange(M, dtype=jnp.int32), *arrays)
    return jax.jit(jax.value_and_grad(mean, argnums=(0, 1))).lower(*given).as_text()


def products(text):
    """The precision of every product, and of which algorithm; of products with a single vector, those of moments."""
    found = [match.groups() for match in PRODUCT.finditer(text)]
    assert len(found) == text.count("dot_general")
    return [(name, algorithm) for name, algorithm, shapes in found if not re.search(r"<1x|x1xf32", shapes)]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(shared, "BLOCK_SIZE", 4)


def implementations():
    """Every loss in every implementation; a variant, whose products are those of its row, in one of them, in turn."""
    for k, (name, row) in enumerate(ROWS.items()):
        found = ["moments"] if name.endswith("moments") else ["dense", "blockwise", "ring"]
        yield from ((name, chosen) for chosen in ([found[k % len(found)]] if row.variant else found))


@pytest.mark.parametrize("name", ROWS)
def test_the_default_is_the_highest(name):
    """In whatever implementation: it is the default of the loss."""
    assert lower(ROWS[name]) == lower(ROWS[name], precision="highest")


@pytest.mark.parametrize(("name", "implementation"), implementations())
def test_every_product_has_it(name, implementation):
    chosen = {} if implementation == "moments" else {"implementation": implementation}
    default, high = (lower(ROWS[name], **chosen, **options) for options in ({}, {"precision": "high"}))
    assert set(products(default)) == {("HIGHEST", None)}
    assert set(products(high)) == {("HIGH", None)}
    assert len(products(default)) == len(products(high)) >= 2


def precisions(jaxpr):
    """Those of the products of a jaxpr, except of products with a single vector."""
    found = set()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general" and not any(1 in x.aval.shape for x in (*eqn.invars, *eqn.outvars)):
            found.add(eqn.params["precision"])
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                found |= precisions(getattr(inner, "jaxpr", inner))
    return found


ALL = (*pairwise.PRECISIONS, X3)
OF_EACH_ENGINE = ("info_nce", "dhel_mean", "sup_con", "moco", "vrns_moments", "kcl_gaussian")
# What a precision is to a product is the engine's; of the other losses two in turn show that they pass it on.
TAKEN = {
    name: ALL if name in OF_EACH_ENGINE else (ALL[k % len(ALL)], ALL[(k + 1) % len(ALL)]) for k, name in enumerate(ROWS)
}


@pytest.mark.parametrize("name", ROWS)
def test_every_loss_takes_every_precision(name):
    row, x = ROWS[name], jax.ShapeDtypeStruct((M, D), jnp.float32)

    def mean(precision, u, v):
        return row.fn(u, v, precision=precision, **row.arrays(M), **row.kwargs, **row.form).mean()

    for precision in TAKEN[name]:
        value_and_grad = jax.value_and_grad(functools.partial(mean, precision), argnums=(0, 1))
        (found,) = precisions(jax.make_jaxpr(value_and_grad)(x, x).jaxpr)
        asked = precision if isinstance(precision, str) else precision.name
        assert found == ((lax.Precision(asked),) * 2 if asked.islower() else lax.DotAlgorithmPreset[asked])


def test_a_preset_is_lowered_as_its_algorithm():
    text = lower(ROWS["simclr"], precision="BF16_BF16_F32_X3")
    assert text == lower(ROWS["simclr"], precision=X3)
    algorithms = {algorithm for _, algorithm in products(text)}
    assert len(algorithms) == 1 and "lhs_precision_type = bf16" in algorithms.pop()


@pytest.mark.parametrize(
    "precision", ["full", "HIGH", "F16_F16_F32", "BF16_BF16_BF16", "F64_F64_F64", "DEFAULT", 3, None]
)
def test_what_does_not_accumulate_in_float32_is_refused(precision):
    x = jnp.ones((4, 3))
    for loss in (losses.simclr, losses.info_nce, losses.kcl, losses.spectral):
        with pytest.raises(ValueError, match=rf"expected precision 'highest', .*TF32_TF32_F32.*, got {precision}\.$"):
            loss(x, x, precision=precision)


def test_float64_stays_float64(x64):
    u, v = (jnp.asarray(x) for x in np.random.default_rng(0).normal(size=(2, M, D)))
    want = losses.simclr(u, v)
    for precision in ("high", "default", "F64_F64_F64"):
        got = losses.simclr(u, v, precision=precision)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, want, rtol=1e-15)
    with pytest.raises(ValueError, match=r"'default', F64_F64_F64 .*, got TF32_TF32_F32"):
        losses.simclr(u, v, precision="TF32_TF32_F32")


def test_what_the_backend_lacks_is_refused_in_a_line():
    with pytest.raises(ValueError, match=r"^The precision 'TF32_TF32_F32' is not supported by dot_general on CPU\n"):
        lower(ROWS["simclr"], precision="TF32_TF32_F32")
