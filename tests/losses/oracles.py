"""The losses in NumPy and float64, written pair by pair from the papers' definitions; they share no code with the
package."""

import itertools

import numpy as np


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


def queue(d):
    """Five past embeddings, some of them of the instances 0, 2 and 7."""
    return np.random.default_rng(0).normal(size=(5, d)), np.array([-1, 2, 0, -1, 7])


def moco(u, v, ids, temperature, keys=None):
    past, past_ids = queue(u.shape[1])
    past, ids = unit(past), np.asarray(ids)
    (u, v), (ku, kv) = (map(unit, pair) for pair in ((u, v), keys or (u, v)))

    def one(i, anchor, others):
        negatives = np.concatenate([others[ids != ids[i]], past[past_ids != ids[i]]])
        positive = others[i] @ anchor / temperature
        return log_of_sum(np.append(negatives @ anchor / temperature, positive)) - positive

    return np.array([(one(i, u[i], kv) + one(i, v[i], ku)) / 2 for i in range(len(u))])


def sogclr_means(u, v, ids, temperature):
    """The logarithm of each instance's mean over its negatives, of both kinds and directions; -inf without any."""
    means = []
    for pair in sides(u, v, ids):
        exponents = [s / temperature for a, _, cross, within in pair for s in np.concatenate([cross, within]) @ a]
        means.append(log_of_sum(exponents) - np.log(len(exponents)) if exponents else -np.inf)
    return np.array(means)


def sogclr_averages(u, v, ids, log_average, temperature, update_weight):
    means = sogclr_means(u, v, ids, temperature)
    weighed = np.logaddexp(np.log(1 - update_weight) + log_average, np.log(update_weight) + means)
    moved = np.where(np.isneginf(log_average), means, weighed)
    return np.where(np.isneginf(means), log_average, moved)


def sogclr(u, v, ids, log_average, temperature, update_weight):
    means = sogclr_means(u, v, ids, temperature)
    averages = sogclr_averages(u, v, ids, log_average, temperature, update_weight)
    positives = np.sum(unit(u) * unit(v), axis=1)
    return np.where(np.isneginf(means), 0, averages) - positives / temperature


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

    def both(a, b):
        counted = [weight * one(*side) for weight, side in zip(weights, (a, b), strict=True) if weight]
        return sum(counted) - a[0] @ a[1] / temperature

    return np.array([both(a, b) for a, b in sides(u, v, ids)])


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


def floor(dtype):
    """The least distance that riesz takes: sixteen epsilons, squared, of the dtype that the loss is computed in."""
    return 4 * np.sqrt(np.finfo(np.float64 if dtype == np.float64 else np.float32).eps)


def riesz(r, t, least):
    return np.sign(t) * np.maximum(r, least) ** -t


KERNELS = {  # of the distance: for positives, for negatives
    "gaussian": (lambda r, t, _: np.exp(-t * r**2),) * 2,
    "log": (lambda r, t, _: -np.log(t * r**2 + 1) / 2,) * 2,
    "imq": (lambda r, c, _: c / np.sqrt(c**2 + r**2),) * 2,
    "riesz": (riesz, riesz),
    "gaussian_riesz": (lambda r, *_: np.exp(-2 * r**2), riesz),
    "own": (lambda r, *_: 1 / (1 + r**2),) * 2,
}


def distance(similarity):
    return np.sqrt(np.maximum(2 - 2 * similarity, 0))


def kcl(u, v, ids, kernel, gamma, t=None):
    least = floor(np.asarray(u).dtype)
    of_positives, of_negatives = KERNELS[kernel]

    def energy(anchor, _, __, within):
        return mean(of_negatives(distance(within @ anchor), t, least))

    def one(a, b):
        return gamma * (energy(*a) + energy(*b)) - 2 * of_positives(distance(a[0] @ a[1]), t, least)

    return np.array([one(a, b) for a, b in sides(u, v, ids)])


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
