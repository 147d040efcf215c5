"""The closed forms, against the losses at the simplex and around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses, theory

MEMBERS = [
    ("info_nce", {"temperature": 0.5}),
    ("simclr", {"temperature": 0.3}),
    ("dcl", {"temperature": 0.1}),
    ("dhel", {"temperature": 0.5, "form": "mean"}),
    ("dhel", {"temperature": 0.5, "form": "sum"}),
    ("siglip", {"scale": 10.0, "bias": -10.0}),
    ("spectral", {}),
    ("kcl", {"kernel": "gaussian", "t": 2.0, "gamma": 16.0}),
    ("kcl", {"kernel": "log", "t": 1.0, "gamma": 8.0}),
    ("kcl", {"kernel": "imq", "t": 2.0}),
    ("kcl", {"kernel": "riesz", "t": -1.0}),
    ("kcl", {"kernel": "gaussian_riesz", "t": 1.0}),
    ("align_uniform", {"weight": 0.5, "t": 3.0}),
    ("sup_con", {"temperature": 0.2}),
    ("multi_view_info_nce", {"temperature": 0.5, "form": "pairwise"}),
    ("multi_view_info_nce", {"temperature": 0.5, "form": "joint"}),
    ("multi_view_dhel", {"temperature": 0.5, "form": "sum"}),
    ("multi_view_dhel", {"temperature": 0.5, "form": "mean"}),
]


def value(name, kwargs, x, y):
    fn = getattr(losses, name)
    if name == "sup_con":
        return fn(x, y, jnp.arange(len(x)), **kwargs).mean()
    if name.startswith("multi_view"):
        return fn(jnp.stack([x, y, x]), **kwargs).mean()
    return fn(x, y, **kwargs).mean()


@pytest.mark.parametrize(("name", "kwargs"), MEMBERS, ids=str)
@pytest.mark.parametrize("m", [2, 7])
def test_minimum_is_attained_and_not_undercut(name, kwargs, m, x64):
    d = m if name == "spectral" else m - 1
    best = jnp.eye(m) if name == "spectral" else jnp.asarray(theory.simplex(m, d))
    views = {"num_views": 3} if name.startswith("multi_view") else {}
    minimum = theory.minimum(name, m=m, **kwargs, **views)
    noise = jax.random.normal(jax.random.key(0), (5, 2, m, d))
    sizes = jnp.array([0, 1e-3, 0.1, 0.5, 3.0])[:, None, None, None]
    pairs = best[None, None] + sizes * noise
    attained, *others = jax.jit(jax.vmap(lambda pair: value(name, kwargs, *pair)))(pairs)
    np.testing.assert_allclose(attained, minimum, rtol=1e-6, atol=1e-9)
    assert min(others) >= minimum - 1e-9


def test_spectral_undercuts_the_simplex():
    """Its psi falls below 0, so Theorem 5.1 does not hold for it: orthogonal negatives are better."""
    x = jnp.asarray(theory.simplex(4, 4), jnp.float32)
    assert losses.spectral(x, x).mean() == pytest.approx(-1 + 1 / 9)
    assert theory.minimum("spectral", m=4) == -1


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("vrns", {}, "expected one of 'info_nce'.*got 'vrns'"),
        ("simclr", {"sigma": 1.0}, "hyperparameters of 'simclr' that have a closed form, got sigma=1.0"),
        ("kcl", {"kernel": "box"}, "hyperparameters of 'kcl' that have a closed form, got kernel='box'"),
        ("kcl", {"kernel": "riesz"}, "expected t < 0.*got 2.0"),
        ("siglip", {"bias": 5.0}, "separates 8 pairs excessively"),
    ],
)
def test_bad_input(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        theory.minimum(name, m=8, **kwargs)
