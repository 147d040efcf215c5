"""What is said of a claim: its test over seeds, and the correction for the number of tests."""

import pytest

from experiments.papers import claims


@pytest.mark.parametrize(
    ("seeds", "falls", "verdict"),
    [
        ([-1.0, -1.1, -0.9], True, "confirmed (3 of 3 pairs; mean difference -1 over 3 seeds, p = 0.0033)"),
        ([-1.0, -1.1, -0.9], False, "contradicted (0 of 3 pairs; mean difference -1 over 3 seeds, p = 0.0033)"),
        ([1.0, 1.1, 0.9], False, "confirmed (3 of 3 pairs"),
        ([1.0, -1.1, 0.9], False, "not decidable at this size (2 of 3 pairs"),
        ([1.0], False, "not decidable at this size (1 of 1 pair; mean difference 1 over 1 seed, no spread to test)"),
        (
            [0.0, 0.0, 0.0],
            False,
            "not decidable at this size (0 of 3 pairs, 3 equal; mean difference 0 over 3 seeds, no spread to test)",
        ),
        ([1e-15, -1e-15, 1.0], False, "not decidable at this size (1 of 3 pairs, 2 equal"),
        ([0.5, 0.5, 0.5 + 1e-12], False, "not decidable at this size (3 of 3 pairs; mean difference 0.5"),
    ],
)
def test_what_is_said_of_an_effect(seeds, falls, verdict):
    said = claims.describe_effect("It changes", {k: [x] for k, x in enumerate(seeds)}, falls=falls)
    assert said.sentence.startswith(f"It changes: {verdict}")
    assert (said.p == 1) == ("no spread" in said.finding)


def test_pairs_of_a_seed_are_one_observation():
    """Ten equal pairs in each of two seeds decide no more than one in each."""
    one, ten = ({k: [x] * n for k, x in enumerate((1.0, 1.5))} for n in (1, 10))
    p = [claims.describe_effect("It rises", found).p for found in (one, ten)]
    assert p == [pytest.approx(0.1257, abs=1e-4)] * 2


@pytest.mark.parametrize(
    ("p", "left"),
    [
        # Holm 1979: the k-th least of n is compared with 0.05 / (n - k), and the first that fails ends it.
        ([0.01, 0.04, 0.03, 0.005], [0.005, 0.01]),
        ([0.01, 0.02, 0.03, 0.04], [0.01]),
        ([0.02, 0.03], [0.02, 0.03]),
        ([0.03, 0.03], []),
        ([None, 0.04, None], [0.04]),
        ([1.0, 0.04], []),  # that the runs cannot tell counts as a test
        ([None], []),
        ([], []),
    ],
)
def test_effects_are_corrected_for_their_number(p, left):
    effects = [claims.Effect(f"claim {x}", "found (here).", x) for x in p]
    assert [effect.p for effect in claims.correct(effects)] == left
    count = sum(x is not None for x in p)
    said = claims.describe_correction(effects)
    assert said.startswith(f"After Holm's correction, {len(left) or 'none'} of {count} test")
    assert said.endswith(f": {'; '.join(f'claim {x} (found)' for x in left)}." if left else "remains significant.")
