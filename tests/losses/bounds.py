"""How far a loss may be from its oracle: what follows from the dtype it is computed in, and from its definition.

Each operation rounds by at most half an epsilon of itself, and n of them in a sum by about sqrt n halves (Higham and
Mary, 2019). A similarity of unit vectors in d dimensions is a sum of d products of numbers that were normalised, by
another such sum: it is off by (4 + sqrt d) eps / 2. A loss is a function of similarities, and off by

    slope (4 + sqrt d) eps / 2 + size (8 + sqrt n) eps / 2

with slope the most that a value moves when every similarity moves by 1, size the sum of the absolute values of its
terms, and n the number of terms.
"""

from typing import NamedTuple

import numpy as np

from tests.losses import oracles


class Setting(NamedTuple):
    """What a bound depends on."""

    u: np.ndarray
    v: np.ndarray
    ids: np.ndarray
    eps: float

    @property
    def similarity(self):
        return (4 + np.sqrt(self.u.shape[1])) * self.eps / 2

    @property
    def rounding(self):
        return (8 + np.sqrt(6 * len(self.u))) * self.eps / 2  # at most six candidates an instance, with three views

    def bound(self, slope, size):
        return slope * self.similarity + size * self.rounding


def softmax(logarithms=1):
    """A positive pair over t, and so many logarithms of sums of exp of similarities over t, each of slope 1/t."""

    def bound(setting, temperature, **_):
        log_m = np.log(6 * len(setting.u))
        return setting.bound((1 + logarithms) / temperature, (1 + logarithms) / temperature + logarithms * log_m)

    return bound


def dcl(setting, temperature, sigma=None):
    negatives = softmax()(setting, temperature)
    if sigma is None:
        return negatives
    weight = 2 + min(len(setting.u), np.exp(min(2 / sigma, 700)))  # of a positive pair; it moves by 2 / sigma of itself
    return negatives + setting.bound(*[weight * (1 + 2 / sigma) / temperature] * 2)


def sup_con(setting, temperature, **_):
    """The positives are summed before they meet the anchor: as many roundings as there are embeddings of a label."""
    return softmax()(setting, temperature) + setting.bound(0, 6 / temperature)


def siglip(setting, scale, bias):
    m = len(setting.u)
    return setting.bound(m * scale, m * (scale + abs(bias) + 1))


def kcl(setting, kernel, gamma, t=None):
    """A kernel is monotone: a similarity's error moves it no further than to its values at both ends.

    Where it is steep, as riesz is near its floor, no one slope would do.
    """
    u, v, ids, _ = setting
    floor = oracles.floor(u.dtype)
    of_positives, of_negatives = oracles.KERNELS["own" if callable(kernel) else kernel]
    power = 1 + abs(t or 0) * np.log(1 / floor)  # r^-t is exp(-t log r)

    def error(fn, s):
        ends = np.array(
            [fn(oracles.distance(s + move), t, floor) for move in (setting.similarity, -setting.similarity)]
        )
        return np.abs(ends[0] - ends[1]) + setting.rounding * power * np.abs(ends).max(axis=0)

    def energy(anchor, _, __, within):
        return oracles.mean(error(of_negatives, within @ anchor))

    sides = oracles.sides(u, v, ids)
    return np.array([gamma * (energy(*a) + energy(*b)) + 2 * error(of_positives, a[0] @ a[1]) for a, b in sides])


def align_uniform(setting, weight, alpha, t):
    assert alpha == 2, "the slope of a smaller power has no bound"
    return setting.bound(2 + 2 * t * weight, 4 + weight * (4 * t + 4 * np.log(len(setting.u))))


def squares(slope, size, *, moments=False):
    """A mean of squares. By moments it is one over all candidates, positives among them, less those that do not count:
    it is wrong by a rounding of the former, as often as its candidates are more than the negatives, and of the latter.
    """

    def bound(setting, **_):
        m, d = setting.u.shape
        negatives = (setting.ids[:, None] != setting.ids).sum(axis=1).clip(1)
        times = 2 * (1 + m / negatives) if moments or m >= 2 * d else 1
        return times * setting.bound(slope, size)

    return bound


def info_nce_based(setting, slope, **_):
    """log(1 + sum of softplus), whose derivative is no greater than itself."""
    return setting.bound(2 * slope, 2 * slope + np.log(4 * len(setting.u)) + 1)


BOUNDS = {
    "info_nce": softmax(),
    "simclr": softmax(),
    "dcl": dcl,
    "dhel": softmax(logarithms=2),
    "moco": softmax(),
    "sogclr": softmax(),
    "sup_con": sup_con,
    "multi_view_info_nce": softmax(),
    "multi_view_dhel": softmax(logarithms=3),
    "vrns": squares(4, 4),
    "siglip": siglip,
    "spectral": squares(3, 2),
    "kcl": kcl,
    "align_uniform": align_uniform,
    "info_nce_based": info_nce_based,
    "independently_additive": lambda setting, slope, **_: setting.bound(np.e + 2 * slope, np.e + 2 * (slope + 1)),
}


def bound(row, u, v, ids, **hyperparameters):
    """[] or [m]: of the loss, plus that of the oracle, which rounds as well."""
    eps = np.finfo(np.float64 if u.dtype == np.float64 else np.float32).eps
    given = {**row.kwargs, **row.form, **hyperparameters}
    of = row.bound or BOUNDS[row.loss.__name__]
    return sum(of(Setting(u, v, ids, e), **given) for e in (eps, np.finfo(np.float64).eps))
