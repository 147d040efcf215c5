"""Runs as one program: each is the run alone, to rounding, and leaves the same workdir."""

import json

import numpy as np
import pytest

from contrastive_jax.jobs import loading, run
from contrastive_jax.jobs.logs import rows
from contrastive_jax.jobs.sweeps import stack, stacked_runs
from tests.jobs.support import QUICK, small

STEPS = 6
SEED, TEMPERATURE, WEIGHT, RATE = "seed", "loss.kwargs.temperature", "vrns_weight", "optimizer.learning_rate"
# Three seeds, of which one has two runs: they lie side by side.
RAGGED = [
    {SEED: 0, TEMPERATURE: 0.1, WEIGHT: 0.0},
    {SEED: 1, TEMPERATURE: 0.2, WEIGHT: 30.0},
    {SEED: 2**32 - 1, TEMPERATURE: 0.5, WEIGHT: 0.0},
    {SEED: 0, TEMPERATURE: 0.5, WEIGHT: 30.0},
]
DECAY = "optimizer.kwargs.weight_decay"
# Two runs of each of two seeds: they share their views.
EVEN = [{SEED: s, RATE: r, DECAY: d} for s in (3, 4) for r, d in ((0.1, 1e-4), (1.0, 0.1))]


def take(configs, folder, **options):
    """Take the runs of a stack; their workdirs and errors."""
    workdirs, errors = [folder / str(k) for k in range(len(configs))], {}
    stacked_runs.run_stack(configs, workdirs, errors.__setitem__, **options)
    assert sorted(errors) == list(range(len(configs)))
    return workdirs, [errors[k] for k in range(len(configs))]


def read(workdir):
    summary = json.loads((workdir / "summary.json").read_text())
    return rows.read_rows(workdir / rows.ROWS), summary, loading.load(workdir)


def assert_same_run(ours, alone, *, rtol=2e-3, atol=2e-4):
    (our_rows, our_summary, our_encoder), (rows_alone, summary, encoder) = read(ours), read(alone)
    assert [list(row) for row in our_rows] == [list(row) for row in rows_alone]
    for row, other in zip(our_rows, rows_alone, strict=True):
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=rtol, atol=atol, err_msg=name)
    assert our_summary["steps"] == summary["steps"] and our_summary.keys() == summary.keys()
    for name, scores in summary["evaluation"].items():
        np.testing.assert_allclose(our_summary["evaluation"][name]["knn"], scores["knn"], atol=0.02)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    np.testing.assert_allclose(our_encoder.project(images), encoder.project(images), rtol=rtol, atol=1e-3)
    assert {path.name for path in ours.iterdir()} == {path.name for path in alone.iterdir()}
    for name in ("config.json", "data.json"):
        assert (ours / name).read_text() == (alone / name).read_text()


@pytest.mark.parametrize("values", [RAGGED, EVEN], ids=["ragged", "even"])
def test_each_run_of_a_stack_is_the_run_alone(values, tmp_path):
    configs = [small(**QUICK, **own) for own in values]
    assert stack.group(configs) == [[0, 1, 2, 3]]
    workdirs, errors = take(configs, tmp_path / "stack", steps=STEPS)
    assert errors == [None] * 4
    for k, config in enumerate(configs):
        run.run(config, tmp_path / f"alone{k}", steps=STEPS)
        assert_same_run(workdirs[k], tmp_path / f"alone{k}")
    logged = [("vrns" in rows.read_rows(workdir / rows.ROWS)[0]) for workdir in workdirs]
    assert logged == [bool(own.get(WEIGHT)) for own in values]
    losses = {rows.read_rows(workdir / rows.ROWS)[-1]["loss"] for workdir in workdirs}
    assert len(losses) == 4
