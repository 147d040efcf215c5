"""What the papers' tables share: which runs are compared with which."""

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
