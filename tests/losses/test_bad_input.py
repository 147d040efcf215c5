"""What a loss cannot use is refused at trace time, with what was expected and what was given."""

import jax
import jax.numpy as jnp
import pytest

from contrastive_jax import losses
from tests.losses.table import ROWS
from tests.losses.test_values import batch

BAD_INPUT = {
    "rank": (lambda fn, u, v: fn(u[0], v[0]), r"\[m, d\]"),
    "shapes": (lambda fn, u, v: fn(u, v[:3]), r"\(4, 3\).*\(3, 3\)"),
    "one_pair": (lambda fn, u, v: fn(u[:1], v[:1]), "m >= 2.*got 1"),
    "integers": (lambda fn, u, v: fn(u.astype(int), v), "float dtype.*int32"),
    "ids_shape": (lambda fn, u, v: fn(u, v, ids=jnp.arange(3)), r"integers of shape \(4,\).*\(3,\)"),
    "ids_dtype": (lambda fn, u, v: fn(u, v, ids=jnp.ones(4)), "integers.*float32"),
    "implementation": (
        lambda fn, u, v: fn(u, v, implementation="magic"),
        "implementation 'dense'.*got 'magic'",
    ),
}
OF_TWO_ARRAYS = ("rank", "shapes", "integers")  # of one array of views, see test_bad_views


@pytest.mark.parametrize(
    ("row", "call", "message"),
    [
        pytest.param(row, *BAD_INPUT[bad], id=f"{name}-{bad}")
        for name, row in ROWS.items()
        for bad in BAD_INPUT
        if row.views == 2 or bad not in OF_TWO_ARRAYS
    ],
)
def test_bad_input(row, call, message):
    def fn(u, v, **options):  # raised at trace time
        given = {**row.arrays(len(u)), **row.kwargs, **row.form, **options}
        return jax.eval_shape(lambda u, v: row.fn(u, v, **given), u, v)

    with pytest.raises(ValueError, match=message):
        call(fn, *batch(4, 3))


@pytest.mark.parametrize("fn", [losses.multi_view_info_nce, losses.multi_view_dhel])
@pytest.mark.parametrize(
    ("views", "message"),
    [
        (jnp.ones((4, 3)), r"\[V, m, d\].*\(4, 3\)"),
        (jnp.ones((1, 4, 3)), r"V >= 2.*\(1, 4, 3\)"),
        (jnp.ones((2, 4, 3), int), "float dtype.*int32"),
    ],
)
def test_bad_views(fn, views, message):
    with pytest.raises(ValueError, match=message):
        fn(views)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, v: losses.simclr(u, v, temperature=0.0), "expected temperature > 0, got 0.0"),
        (lambda u, v: losses.dcl(u, v, temperature=-1), "expected temperature > 0, got -1"),
        (lambda u, v: losses.dcl(u, v, sigma=0), "expected sigma > 0, got 0"),
        (lambda u, v: losses.info_nce(u, v, temperature=jnp.ones(3)), r"scalar temperature.*\(3,\)"),
        (lambda u, v: losses.dhel(u, v, form="both"), "expected form .*'one_sided', got 'both'"),
        (lambda u, v: losses.vrns(u, v, num_instances=1), "num_instances >= 2.*got 1"),
        (lambda u, v: losses.siglip(u, v, bias=jnp.ones(2)), r"scalar bias.*\(2,\)"),
        (
            lambda u, v: losses.kcl(u, v, kernel="cosine"),
            "kernel 'gaussian'.*or a function.*got 'cosine'",
        ),
        (lambda u, v: losses.kcl(u, v, t=-2.0), "expected t > 0, got -2"),
        (lambda u, v: losses.kcl(u, v, kernel="riesz", t=0), "t other than 0.*riesz kernel, got 0"),
        (lambda u, v: losses.align_uniform(u, v, alpha=0), "expected alpha > 0, got 0"),
        (lambda u, v: losses.sup_con(u, v, jnp.arange(3)), r"expected labels to be integers of shape \(4,\).*\(3,\)"),
        (lambda u, v: losses.sup_con(u, v, jnp.ones(4)), "labels to be integers.*float32"),
        (
            lambda u, v: losses.multi_view_dhel(jnp.stack([u, v]), form="one_sided"),
            "'sum' or 'mean', got 'one_sided'",
        ),
        (
            lambda u, v: losses.multi_view_info_nce(jnp.stack([u, v]), form="all"),
            "'joint' or 'pairwise', got 'all'",
        ),
        (lambda u, v: losses.info_nce_based(u, v, phi=abs, psi=abs, cross_view=False), "got neither"),
        (lambda u, v: losses.independently_additive(u, v, phi=abs, psi=abs, cross_view=False), "got neither"),
    ],
)
def test_bad_hyperparameters(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, *batch(4, 3))
