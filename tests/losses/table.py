"""One row for each loss. Every test of a loss runs over this table; a loss without a row fails `test_every_loss_has_a_row`.

The oracles are NumPy in float64, written pair by pair from the papers' definitions and sharing no code with the package.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from contrastive_jax import losses


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
    return x.max() + np.log(np.exp(x - x.max()).sum())


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


def dcl(u, v, ids, temperature):
    def one(anchor, positive, cross, within):
        return (
            log_of_sum(np.concatenate([cross @ anchor, within @ anchor]) / temperature)
            - positive @ anchor / temperature
        )

    return np.array([(one(*a) + one(*b)) / 2 for a, b in sides(u, v, ids)])


def dhel(u, v, ids, temperature, weights):
    def one(anchor, _, __, within):
        return log_of_sum(within @ anchor / temperature)

    return np.array(
        [weights[0] * one(*a) + weights[1] * one(*b) - a[0] @ a[1] / temperature for a, b in sides(u, v, ids)]
    )


def vrns(u, v, ids, num_instances):
    def one(anchor, _, cross, __):
        return np.mean((cross @ anchor + 1 / (num_instances - 1)) ** 2) if len(cross) else 0.0

    return np.array([one(*a) for a, _ in sides(u, v, ids)])


class Row(NamedTuple):
    fn: Callable  # (u, v, **options) -> [m]
    oracle: Callable  # (u, v, ids, ...) -> [m]
    kwargs: dict = {}  # hyperparameters of both
    authors: str = ""  # name in authors_values.npz
    form: dict = {}  # arguments that fn alone takes
    symmetric: bool = True  # swapping the views changes nothing


TEMPERATURE = {"temperature": 0.2}
ROWS = {
    "info_nce": Row(losses.info_nce, info_nce, TEMPERATURE, "torch.clip"),
    "simclr": Row(losses.simclr, simclr, TEMPERATURE, "lee.simclr"),
    "dcl": Row(losses.dcl, dcl, TEMPERATURE, "lee.dcl"),
    "dhel_mean": Row(losses.dhel, partial(dhel, weights=(0.5, 0.5)), TEMPERATURE, "lee.dhel", {"form": "mean"}),
    "dhel_sum": Row(
        losses.dhel, partial(dhel, weights=(1, 1)), TEMPERATURE, "koromilas.dhel[include_augs=True]", {"form": "sum"}
    ),
    "dhel_one_sided": Row(
        losses.dhel,
        partial(dhel, weights=(1, 0)),
        TEMPERATURE,
        "koromilas.dhel[include_augs=False]",
        {"form": "one_sided"},
        symmetric=False,
    ),
    "vrns": Row(losses.vrns, vrns, {"num_instances": 50_000}, "lee.vrn", symmetric=False),
}
