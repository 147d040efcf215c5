"""One row for each loss, and for each form of it that is computed differently. Every test of a loss runs over them; a
loss without a row fails `test_every_loss_has_a_row`.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import losses
from tests.losses import bounds, oracles
from tests.mappings import MAPPINGS

AUTHORS = np.load(Path(__file__).parent / "authors_values.npz")
CASES = list(enumerate(json.loads(str(AUTHORS["meta"]))))


def no_authors(case, meta):
    return []


def no_arrays(m):
    return {}


class Setting(NamedTuple):
    """One of the authors' values: their number is `factor` times ours with these options."""

    name: str  # in authors_values.npz
    options: dict
    factor: float = 1.0


def at_their_temperature(name):
    return lambda case, meta: [Setting(name, {"temperature": meta["temperature"]})]


def settings_in_file(pattern, options, factor=1.0):
    """Every name in the file that fits; `options` makes hyperparameters of the numbers in the pattern's groups."""

    def settings(case, meta):
        names = {key.split("/")[1] for key in AUTHORS.files if key.startswith(f"c{case}/")}
        found = [(name, re.fullmatch(pattern, name)) for name in sorted(names)]
        return [Setting(name, options(*map(float, match.groups())), factor) for name, match in found if match]

    return settings


def kernel_settings(kernel, factor=1.0):
    return settings_in_file(
        rf"koromilas\.kcl\[kernel={kernel},t=(.+),gamma=(.+)\]",
        lambda t, gamma: {"t": t, "gamma": gamma / factor},
        factor,
    )


def own_kernel(squared):
    return 1 / (1 + squared)


def softplus_family(fn, **phi_and_psi):
    """A member of a general form that no named loss is, with a hyperparameter that phi and psi close over."""

    def call(u, v, *, slope, **options):
        functions = {name: make(slope) for name, make in phi_and_psi.items()}
        return fn(u, v, **functions, **options)

    return call


def softplus(slope):
    return lambda x: jax.nn.softplus(slope * x)


def on_three_views(fn):
    return lambda u, v, **options: fn(jnp.stack(oracles.three_views(u, v)), **options)


def with_queue(u, v, *, instances, ids=None, **options):
    """`moco` with the oracle's queue; without ids the pairs are those of `instances`."""
    queue, queue_ids = (jnp.asarray(x) for x in oracles.queue(u.shape[-1]))
    ids = jnp.asarray(instances) if ids is None else ids
    return losses.moco(u, v, queue, queue_ids=queue_ids, ids=ids, **options)


def values_of_sogclr(u, v, *, log_average, **options):
    return losses.sogclr(u, v, jnp.asarray(log_average), **options)[0]


def averages(m):
    """Of each instance, some of them never seen."""
    return {"log_average": np.where(np.arange(m) % 3 == 1, -np.inf, np.arange(m) % 5 - 1.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    fn: Callable  # (u, v, **options) -> [m]
    oracle: Callable  # (u, v, ids, ...) -> [m]
    kwargs: dict = dataclasses.field(default_factory=dict)  # hyperparameters of both
    authors: Callable = no_authors  # the Settings of a case in authors_values.npz
    form: dict = dataclasses.field(default_factory=dict)  # arguments that fn alone takes
    symmetric: bool = True  # swapping the views changes nothing
    of: Callable | None = None  # the public loss, where fn wraps it
    arrays: Callable = no_arrays  # arguments of both with one entry for each of m pairs
    views: int = 2
    devices: tuple = (1, 2, 4, 8)
    variant: bool = False  # a row above it takes the same way through dtypes, devices and second derivatives
    bound: Callable | None = None  # how far its values may be from the oracle's; None: that in bounds.BOUNDS
    numeric_gradient: bool = True  # False where a part is deliberately not differentiated

    @property
    def loss(self):
        return self.of or self.fn

    @property
    def mappings(self):
        return ("shard_map",) if self.variant else tuple(MAPPINGS)


TEMPERATURE = {"temperature": 0.2}
NEW = {"devices": (2, 8)}
VARIANT = {"devices": (8,), "variant": True}


def dhel_row(form, weights, authors, **options):
    return Row(losses.dhel, partial(oracles.dhel, weights=weights), TEMPERATURE, authors, {"form": form}, **options)


def kcl_row(kernel, t, authors=no_authors, **options):
    kwargs = {"gamma": 16.0} if t is None else {"t": t, "gamma": 16.0}
    form = {"kernel": own_kernel if kernel == "own" else kernel}
    return Row(losses.kcl, partial(oracles.kcl, kernel=kernel), kwargs, authors, form, **options)


def multi_view_row(fn, oracle, form, **options):
    return Row(on_three_views(fn), oracle, TEMPERATURE, form={"form": form}, symmetric=False, of=fn, views=3, **options)


def family_row(fn, oracle, cross, within, **options):
    functions = {"phi": softplus, "psi": lambda _: jnp.log1p}
    if fn is losses.independently_additive:
        functions = {"phi": lambda _: lambda x: -jnp.exp(-x), "psi": softplus}
    return Row(
        softplus_family(fn, **functions),
        partial(oracle, cross=cross, within=within),
        {"slope": 3.0},
        form={"cross_view": cross, "within_view": within},
        of=fn,
        **options,
    )


ROWS = {
    "info_nce": Row(losses.info_nce, oracles.info_nce, TEMPERATURE, at_their_temperature("torch.clip")),
    "simclr": Row(losses.simclr, oracles.simclr, TEMPERATURE, at_their_temperature("lee.simclr")),
    "dcl": Row(losses.dcl, oracles.dcl, TEMPERATURE, at_their_temperature("lee.dcl")),
    "dcl_weighted": Row(losses.dcl, oracles.dcl, {**TEMPERATURE, "sigma": 0.5}, numeric_gradient=False, **NEW),
    "dhel_mean": dhel_row("mean", (0.5, 0.5), at_their_temperature("lee.dhel")),
    "dhel_sum": dhel_row("sum", (1, 1), at_their_temperature("koromilas.dhel[include_augs=True]"), **NEW),
    "dhel_one_sided": dhel_row(
        "one_sided", (1, 0), at_their_temperature("koromilas.dhel[include_augs=False]"), symmetric=False, **NEW
    ),
    "sup_con": Row(
        losses.sup_con, oracles.sup_con, TEMPERATURE, arrays=lambda m: {"labels": np.arange(m) // 2 % 3}, **NEW
    ),
    "moco": Row(
        with_queue,
        lambda u, v, ids, instances, temperature: oracles.moco(u, v, ids, temperature),
        TEMPERATURE,
        of=losses.moco,
        arrays=lambda m: {"instances": np.arange(m)},
        devices=(8,),
    ),
    "sogclr": Row(
        values_of_sogclr,
        oracles.sogclr,
        {**TEMPERATURE, "update_weight": 0.3},
        of=losses.sogclr,
        arrays=averages,
        numeric_gradient=False,
        devices=(8,),
    ),
    "vrns": Row(
        losses.vrns,
        oracles.vrns,
        {"num_instances": 50_000},
        settings_in_file(r"lee\.vrn\[n=(.+)\]", lambda n: {"num_instances": n}),
        symmetric=False,
    ),
    "vrns_moments": Row(
        partial(losses.vrns, implementation="moments"),
        oracles.vrns,
        {"num_instances": 50_000},
        settings_in_file(r"lee\.vrn\[n=(.+)\]", lambda n: {"num_instances": n}),
        symmetric=False,
        of=losses.vrns,
        bound=bounds.squares(4, 4, moments=True),
    ),
    "siglip": Row(
        losses.siglip,
        oracles.siglip,
        {"scale": 10.0, "bias": -10.0},
        settings_in_file(r"torch\.siglip\[scale=(.+),bias=(.+)\]", lambda scale, bias: {"scale": scale, "bias": bias}),
        symmetric=False,
        **NEW,
    ),
    "spectral": Row(losses.spectral, oracles.spectral, symmetric=False, **NEW),
    "spectral_moments": Row(
        partial(losses.spectral, implementation="moments"),
        oracles.spectral,
        symmetric=False,
        of=losses.spectral,
        bound=bounds.squares(3, 2, moments=True),
        **VARIANT,
    ),
    "kcl_gaussian": kcl_row("gaussian", 2.0, kernel_settings("gaussian"), **NEW),
    "kcl_log": kcl_row("log", 2.0, kernel_settings("log", factor=2.0), **VARIANT),
    "kcl_imq": kcl_row("imq", 1.0, kernel_settings("imq"), **VARIANT),
    "kcl_riesz": kcl_row("riesz", 1.0, kernel_settings("riesz"), **VARIANT),
    "kcl_riesz_below_zero": kcl_row("riesz", -1.0, **VARIANT),
    "kcl_gaussian_riesz": kcl_row("gaussian_riesz", 1.0, kernel_settings("gaussian_riesz"), **VARIANT),
    "kcl_own": kcl_row("own", None, **VARIANT),
    "align_uniform": Row(losses.align_uniform, oracles.align_uniform, {"weight": 1.0, "alpha": 2.0, "t": 2.0}, **NEW),
    "multi_view_info_nce": multi_view_row(
        losses.multi_view_info_nce, partial(oracles.multi_view_info_nce, form="joint"), "joint", **NEW
    ),
    "multi_view_info_nce_pairwise": multi_view_row(
        losses.multi_view_info_nce, partial(oracles.multi_view_info_nce, form="pairwise"), "pairwise", **VARIANT
    ),
    "multi_view_dhel": multi_view_row(losses.multi_view_dhel, partial(oracles.multi_view_dhel, weight=1), "sum", **NEW),
    "multi_view_dhel_mean": multi_view_row(
        losses.multi_view_dhel, partial(oracles.multi_view_dhel, weight=1 / 3), "mean", **VARIANT
    ),
    "info_nce_based": family_row(losses.info_nce_based, oracles.info_nce_based, True, True, **NEW),
    "info_nce_based_within": family_row(losses.info_nce_based, oracles.info_nce_based, False, True, **VARIANT),
    "independently_additive": family_row(
        losses.independently_additive, oracles.independently_additive, True, True, symmetric=False, **NEW
    ),
}
