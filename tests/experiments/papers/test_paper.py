"""What the papers' tables share: which runs are compared, and what is said of their differences."""

import pytest

from contrastive_jax.errors import UsageError
from experiments.papers import paper

ROWS = [
    {"seed": str(seed), "batch_size": str(m), "vrns_weight": str(weight), "x": str(m + 10 * weight + seed / 10)}
    for seed in (2, 0, 1)
    for m in (32, 64)
    for weight in (0.0, 30.0)
]


def test_a_column_of_chosen_runs_is_in_the_order_of_their_seeds():
    assert paper.select(ROWS, "x", {"batch_size": 32, "vrns_weight": 0}) == [32.0, 32.1, 32.2]
    assert paper.select(ROWS, "x", {"batch_size": 128}) == []
    assert paper.select([{"seed": "0", "loss.name": "kcl", "x": "1"}], "x", {"loss.name": "kcl"}) == [1.0]
    assert paper.select([{"seed": "0", "x": "1"}], "x", {"loss.name": "kcl"}) == []  # of a sweep without that field


def test_a_number_that_is_missing_is_named():
    assert paper.read_number({"x": "0.0"}, "x") == 0
    with pytest.raises(UsageError, match="m=32: expected a number for x, got none; it was not finite"):
        paper.select([{"run": "m=32", "seed": "0", "x": ""}], "x", {})


def test_pairs_of_runs_differ_in_the_change_alone():
    found = paper.compare(ROWS, "x", {"vrns_weight": 0}, {"vrns_weight": 30}, same=["batch_size"])
    assert found == {seed: pytest.approx([300.0, 300.0]) for seed in range(3)}
    with pytest.raises(ValueError, match="same seeds, got 1 and 2"):
        without = [row for row in ROWS if row["seed"] != ("2" if row["vrns_weight"] == "30.0" else "1")]
        paper.compare(without, "x", {"vrns_weight": 30}, {"vrns_weight": 0}, same=["batch_size"])
    with pytest.raises(ValueError, match="zip"):
        paper.compare(ROWS[1:], "x", {"vrns_weight": 0}, {"vrns_weight": 30}, same=["batch_size"])


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
    said = paper.describe_effect("It changes", {k: [x] for k, x in enumerate(seeds)}, falls=falls)
    assert said.sentence.startswith(f"It changes: {verdict}")
    assert (said.p == 1) == ("no spread" in said.finding)


def test_pairs_of_a_seed_are_one_observation():
    """Ten equal pairs in each of two seeds decide no more than one in each."""
    one, ten = ({k: [x] * n for k, x in enumerate((1.0, 1.5))} for n in (1, 10))
    p = [paper.describe_effect("It rises", found).p for found in (one, ten)]
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
    effects = [paper.Effect(f"claim {x}", "found (here).", x) for x in p]
    assert [effect.p for effect in paper.correct(effects)] == left
    count = sum(x is not None for x in p)
    said = paper.describe_correction(effects)
    assert said.startswith(f"After Holm's correction, {len(left) or 'none'} of {count} test")
    assert said.endswith(f": {'; '.join(f'claim {x} (found)' for x in left)}." if left else "remains significant.")
