"""One row for each loss, and for each form of it that is computed differently. Every test of a loss runs over them; a
loss without a row fails `test_every_loss_has_a_row`.

The oracles are NumPy in float64, written pair by pair from the papers' definitions, and share no code with the package.
"""

import dataclasses
import itertools
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
from tests.mappings import MAPPINGS

AUTHORS = np.load(Path(__file__).parent / "authors_values.npz")
CASES = list(enumerate(json.loads(str(AUTHORS["meta"]))))


def unit(x):
    x = np.asarray(x, np.float64)
    peak = np.abs(x).max(axis=1, keepdims=True)
    x = x / np.where(peak == 0, 1, peak)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm == 0, 1, norm)


def log_of_sum(x):
    """log of a sum of exps of a list; 0 where the list is empty (an anchor without a negative)."""
    if len(x) == 0:
        return 0.0
    x = np.asarray(x)
    return x.max() + np.log(np.exp(x - x.max()).sum())


def mean(x):
    return np.mean(x) if len(x) else 0.0


def sides(u, v, ids):
    """For each pair: (anchor, positive, the cross-view negatives, the within-view negatives), from both views."""
    u, v = unit(u), unit(v)
    for i in range(len(u)):
        keep = ids != ids[i]
        yield (u[i], v[i], v[keep], u[keep]), (v[i], u[i], u[keep], v[keep])


def info_nce(u, v, ids, temperature):
    def one(anchor, positive, cross, _):
        return log_of_sum(np.append(cross @ anchor, positive @ anchor) / temperature) - positive @ anchor / temperature

    return np.array([(one(*a) + one(*b)) / 2 for a, b in sides(u, v, ids)])


def simclr(u, v, ids, temperature):
    def one(anchor, positive, cross, within):
        everything = np.concatenate([cross @ anchor, within @ anchor, [positive @ anchor]]) / temperature
        return log_of_sum(everything) - positive @ anchor / temperature

    return np.array([(one(*a) + one(*b)) / 2 for a, b in sides(u, v, ids)])


def dcl(u, v, ids, temperature, sigma=None):
    positives = np.sum(unit(u) * unit(v), axis=1)
    weights = np.ones(len(u))
    if sigma is not None:
        weights = 2 - np.exp(positives / sigma) / np.mean(np.exp(positives / sigma))

    def one(anchor, positive, cross, within):
        return log_of_sum(np.concatenate([cross @ anchor, within @ anchor]) / temperature)

    negatives = [(one(*a) + one(*b)) / 2 for a, b in sides(u, v, ids)]
    return np.array(negatives) - weights * positives / temperature


def dhel(u, v, ids, temperature, weights):
    def one(anchor, _, __, within):
        return log_of_sum(within @ anchor / temperature)

    return np.array(
        [weights[0] * one(*a) + weights[1] * one(*b) - a[0] @ a[1] / temperature for a, b in sides(u, v, ids)]
    )


def sup_con(u, v, ids, labels, temperature):
    z = np.concatenate([unit(u), unit(v)])
    labels, ids = (np.concatenate([x, x]) for x in (np.asarray(labels), np.asarray(ids)))
    values = []
    for a in range(len(z)):
        others = np.arange(len(z)) != a
        denominator = log_of_sum(z[others] @ z[a] / temperature)
        positives = z[others & ((labels == labels[a]) | (ids == ids[a]))]
        values.append(np.mean([denominator - p @ z[a] / temperature for p in positives]))
    return np.mean(np.split(np.array(values), 2), axis=0)


def vrns(u, v, ids, num_instances):
    return np.array(
        [mean((cross @ anchor + 1 / (num_instances - 1)) ** 2) for (anchor, _, cross, _), _ in sides(u, v, ids)]
    )


def siglip(u, v, ids, scale, bias):
    def one(anchor, positive, cross, _):
        return np.logaddexp(0, -scale * positive @ anchor - bias) + np.logaddexp(0, scale * cross @ anchor + bias).sum()

    return np.array([one(*a) for a, _ in sides(u, v, ids)])


def spectral(u, v, ids):
    return np.array([mean((cross @ a) ** 2) - a @ positive for (a, positive, cross, _), _ in sides(u, v, ids)])


def riesz(r, t):
    r = np.maximum(r, 4 * np.sqrt(np.finfo(np.float32).eps))  # the floor of float32
    return np.sign(t) * r**-t


KERNELS = {  # of the distance: for positives, for negatives
    "gaussian": (lambda r, t: np.exp(-t * r**2),) * 2,
    "log": (lambda r, t: -np.log(t * r**2 + 1) / 2,) * 2,
    "imq": (lambda r, c: c / np.sqrt(c**2 + r**2),) * 2,
    "riesz": (riesz, riesz),
    "gaussian_riesz": (lambda r, _: np.exp(-2 * r**2), riesz),
    "own": (lambda r, _: 1 / (1 + r**2),) * 2,
}


def distance(similarity):
    return np.sqrt(np.maximum(2 - 2 * similarity, 0))


def kcl(u, v, ids, kernel, gamma, t=None):
    of_positives, of_negatives = KERNELS[kernel]

    def energy(anchor, _, __, within):
        return mean(of_negatives(distance(within @ anchor), t))

    return np.array(
        [gamma * (energy(*a) + energy(*b)) - 2 * of_positives(distance(a[0] @ a[1]), t) for a, b in sides(u, v, ids)]
    )


def align_uniform(u, v, ids, weight, alpha, t):
    pairs = list(sides(u, v, ids))

    def uniformity(side):
        energies = np.concatenate([np.exp(-t * distance(pair[side][3] @ pair[side][0]) ** 2) for pair in pairs])
        return np.log(energies.mean()) if len(energies) else 0.0

    batch = weight * (uniformity(0) + uniformity(1)) / 2
    return np.array([distance(a[0] @ a[1]) ** alpha + batch for a, _ in pairs])


def three_views(u, v):
    """A third view made of the first, so that what holds for pairs of views is tested on three as well."""
    return [u, v, u[:, ::-1]]


def multi_view_info_nce(u, v, ids, temperature, form):
    views = [unit(x) for x in three_views(u, v)]
    if form == "pairwise":
        pairs = [(0, 1), (0, 2), (1, 2)]
        return np.mean([info_nce(views[a], views[b], ids, temperature) for a, b in pairs], axis=0)
    values = []
    for i in range(len(u)):
        keep = ids != ids[i]
        ordered = list(itertools.permutations(range(3), 2))
        positives = [views[a][i] @ views[b][i] / temperature for a, b in ordered]
        negatives = [s / temperature for a, b in ordered for s in views[b][keep] @ views[a][i]]
        values.append(log_of_sum(positives + negatives) - log_of_sum(positives))
    return np.array(values)


def multi_view_dhel(u, v, ids, temperature, weight):
    views = [unit(x) for x in three_views(u, v)]
    values = []
    for i in range(len(u)):
        keep = ids != ids[i]
        positives = [views[a][i] @ views[b][i] / temperature for a, b in [(0, 1), (0, 2), (1, 2)]]
        uniformity = sum(log_of_sum(x[keep] @ x[i] / temperature) for x in views)
        values.append(weight * uniformity - log_of_sum(positives))
    return np.array(values)


def info_nce_based(u, v, ids, slope, cross, within):
    def one(anchor, positive, across, same):
        kinds = [x for x, counts in ((across, cross), (same, within)) if counts]
        return np.log1p(sum(np.logaddexp(0, slope * (x - positive) @ anchor).sum() for x in kinds))

    return np.array([(one(*a) + one(*b)) / 2 for a, b in sides(u, v, ids)])


def independently_additive(u, v, ids, slope, cross, within):
    def one(pair):
        (u_i, v_i, v_others, u_others), _ = pair
        value = np.exp(-u_i @ v_i) + cross * mean(np.logaddexp(0, slope * v_others @ u_i))
        for x, others in ((u_i, u_others), (v_i, v_others)):
            value += within / 2 * mean(np.logaddexp(0, slope * others @ x))
        return value

    return np.array([one(pair) for pair in sides(u, v, ids)])


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
    return lambda u, v, **options: fn(jnp.stack(three_views(u, v)), **options)


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
    return Row(losses.dhel, partial(dhel, weights=weights), TEMPERATURE, authors, {"form": form}, **options)


def kcl_row(kernel, t, authors=no_authors, **options):
    kwargs = {"gamma": 16.0} if t is None else {"t": t, "gamma": 16.0}
    form = {"kernel": own_kernel if kernel == "own" else kernel}
    return Row(losses.kcl, partial(kcl, kernel=kernel), kwargs, authors, form, **options)


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
    "info_nce": Row(losses.info_nce, info_nce, TEMPERATURE, at_their_temperature("torch.clip")),
    "simclr": Row(losses.simclr, simclr, TEMPERATURE, at_their_temperature("lee.simclr")),
    "dcl": Row(losses.dcl, dcl, TEMPERATURE, at_their_temperature("lee.dcl")),
    "dcl_weighted": Row(losses.dcl, dcl, {**TEMPERATURE, "sigma": 0.5}, numeric_gradient=False, **NEW),
    "dhel_mean": dhel_row("mean", (0.5, 0.5), at_their_temperature("lee.dhel")),
    "dhel_sum": dhel_row("sum", (1, 1), at_their_temperature("koromilas.dhel[include_augs=True]"), **NEW),
    "dhel_one_sided": dhel_row(
        "one_sided", (1, 0), at_their_temperature("koromilas.dhel[include_augs=False]"), symmetric=False, **NEW
    ),
    "sup_con": Row(losses.sup_con, sup_con, TEMPERATURE, arrays=lambda m: {"labels": np.arange(m) // 2 % 3}, **NEW),
    "vrns": Row(
        losses.vrns,
        vrns,
        {"num_instances": 50_000},
        settings_in_file(r"lee\.vrn\[n=(.+)\]", lambda n: {"num_instances": n}),
        symmetric=False,
    ),
    "siglip": Row(
        losses.siglip,
        siglip,
        {"scale": 10.0, "bias": -10.0},
        settings_in_file(r"torch\.siglip\[scale=(.+),bias=(.+)\]", lambda scale, bias: {"scale": scale, "bias": bias}),
        symmetric=False,
        **NEW,
    ),
    "spectral": Row(losses.spectral, spectral, symmetric=False, **NEW),
    "kcl_gaussian": kcl_row("gaussian", 2.0, kernel_settings("gaussian"), **NEW),
    "kcl_log": kcl_row("log", 2.0, kernel_settings("log", factor=2.0), **VARIANT),
    "kcl_imq": kcl_row("imq", 1.0, kernel_settings("imq"), **VARIANT),
    "kcl_riesz": kcl_row("riesz", 1.0, kernel_settings("riesz"), **VARIANT),
    "kcl_riesz_below_zero": kcl_row("riesz", -1.0, **VARIANT),
    "kcl_gaussian_riesz": kcl_row("gaussian_riesz", 1.0, kernel_settings("gaussian_riesz"), **VARIANT),
    "kcl_own": kcl_row("own", None, **VARIANT),
    "align_uniform": Row(losses.align_uniform, align_uniform, {"weight": 1.0, "alpha": 2.0, "t": 2.0}, **NEW),
    "multi_view_info_nce": multi_view_row(
        losses.multi_view_info_nce, partial(multi_view_info_nce, form="joint"), "joint", **NEW
    ),
    "multi_view_info_nce_pairwise": multi_view_row(
        losses.multi_view_info_nce, partial(multi_view_info_nce, form="pairwise"), "pairwise", **VARIANT
    ),
    "multi_view_dhel": multi_view_row(losses.multi_view_dhel, partial(multi_view_dhel, weight=1), "sum", **NEW),
    "multi_view_dhel_mean": multi_view_row(
        losses.multi_view_dhel, partial(multi_view_dhel, weight=1 / 3), "mean", **VARIANT
    ),
    "info_nce_based": family_row(losses.info_nce_based, info_nce_based, True, True, **NEW),
    "info_nce_based_within": family_row(losses.info_nce_based, info_nce_based, False, True, **VARIANT),
    "independently_additive": family_row(
        losses.independently_additive, independently_additive, True, True, symmetric=False, **NEW
    ),
}
