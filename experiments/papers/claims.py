"""What runs say of an effect that a paper claims: a test over seeds, and a correction for the number of tests."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

SIGNIFICANT = 0.05


class Effect(NamedTuple):
    """What the runs say of an effect that a paper claims."""

    claim: str
    finding: str
    p: float | None = None  # of its test: 1 where these runs cannot tell, None where nothing is claimed

    @property
    def sentence(self) -> str:
        """The claim and what was found."""
        return f"{self.claim}: {self.finding}"


def describe_effect(claim: str, differences: Mapping[int, Sequence[float]], *, falls: bool = False) -> Effect:
    """Whether differences within seeds have the sign that a paper claims, by a t-test over the seeds.

    Args:
      claim: what the paper says, as a sentence without its full stop.
      differences: {seed: differences between runs that differ in the claim alone}. The differences of a seed share its
        views and its first encoder, so their mean is one observation.
      falls: whether the claim holds where the differences are negative.

    Example:
      >>> describe_effect("VRNS lowers the variance", {0: [-0.1], 1: [-0.12], 2: [-0.11]}, falls=True).sentence
      'VRNS lowers the variance: confirmed (3 of 3 pairs; mean difference -0.11 over 3 seeds, p = 0.0027).'
    """
    each = [x for found in differences.values() for x in found]
    seeds = [statistics.mean(found) for found in differences.values()]
    noise = 1e-9 * max(map(abs, each))  # of rounding, which is no sign
    right = sum(x < -noise if falls else x > noise for x in each)
    equal = sum(abs(x) <= noise for x in each)
    mean, p = statistics.mean(seeds), _test(seeds, noise)
    verdict = "not decidable at this size"
    if p is not None and p < SIGNIFICANT:
        verdict = "confirmed" if (mean < 0) == falls else "contradicted"
    tested = f"p = {p:.2g}" if p is not None else "no spread to test"
    pairs = f"{right} of {_count(len(each), 'pair')}" + (f", {equal} equal" if equal else "")
    mean = 0.0 if abs(mean) <= noise else mean
    finding = f"{verdict} ({pairs}; mean difference {mean:.3g} over {_count(len(seeds), 'seed')}, {tested})."
    return Effect(claim, finding, 1.0 if p is None else p)


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _test(seeds: Sequence[float], noise: float) -> float | None:
    """The p-value of a two-sided t-test of mean zero; None where nothing can be said.

    That is so of one seed, and of seeds that all differ by the same: the scores of a few hundred images are whole
    multiples of one image, so equal differences say nothing of their spread.
    """
    if len(seeds) < 2 or max(seeds) - min(seeds) <= noise:
        return None
    return float(stats.ttest_1samp(seeds, 0.0).pvalue)


def correct(effects: Sequence[Effect]) -> list[Effect]:
    """The effects that stay significant when all of them are tested together, by Holm's correction.

    Example:
      >>> [effect.claim for effect in correct([Effect("a", "", 0.03), Effect("b", "", 0.04), Effect("c", "", 0.001)])]
      ['c']
    """
    tested = sorted((effect for effect in effects if effect.p is not None), key=lambda effect: effect.p or 0.0)
    left: list[Effect] = []
    for k, effect in enumerate(tested):
        assert effect.p is not None
        if effect.p * (len(tested) - k) >= SIGNIFICANT:
            break
        left.append(effect)
    return left


def describe_correction(effects: Sequence[Effect]) -> str:
    """How many tests a table makes, and what a correction for their number leaves."""
    count = sum(effect.p is not None for effect in effects)
    left = correct(effects)
    verdicts = [f"{effect.claim} ({effect.finding.partition(' (')[0]})" for effect in left]
    named = f": {'; '.join(verdicts)}" if left else ""
    remain = "remain" if len(left) > 1 else "remains"
    return f"After Holm's correction, {len(left) or 'none'} of {_count(count, 'test')} {remain} significant{named}."
