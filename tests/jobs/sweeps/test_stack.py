"""Runs as one program: each is the run alone, to rounding, and leaves the same workdir."""

import itertools
import json
import os
import pathlib
import signal
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.errors import Interrupted, NonFiniteError, UsageError
from contrastive_jax.jobs import loading, run
from contrastive_jax.jobs.logs import rows
from contrastive_jax.jobs.machine import storage
from contrastive_jax.jobs.sweeps import stack, stacked_runs
from tests.jobs.support import QUICK, small, train

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
# Two runs of each of two seeds: they share their views. The first epoch ends at step 5, where they are measured.
MEASURED = {"batch_size": 256, "evaluation.every": 1}
EVEN = [{SEED: s, RATE: r, DECAY: d, **MEASURED} for s in (3, 4) for r, d in ((0.1, 1e-4), (1.0, 0.1))]
KNN = rows.MONITORED + "knn"  # in steps of one image of 360


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
            most = 0.02 if name == KNN else atol
            np.testing.assert_allclose(row[name], other[name], rtol=rtol, atol=most, err_msg=name)
    assert our_summary["steps"] == summary["steps"] and our_summary.keys() == summary.keys()
    for name, scores in summary["evaluation"].items():
        np.testing.assert_allclose(our_summary["evaluation"][name]["knn"], scores["knn"], atol=0.02)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    np.testing.assert_allclose(our_encoder.project(images), encoder.project(images), rtol=rtol, atol=1e-3)
    assert_same_training(*(found.functional[1] for found in (our_encoder, encoder, loading.load_untrained(encoder))))
    assert {path.name for path in ours.iterdir()} == {path.name for path in alone.iterdir()}
    for name in ("config.json", "data.json"):
        assert (ours / name).read_text() == (alone / name).read_text()


def assert_same_training(ours, alone, untrained):
    """Every parameter has moved as in the run alone, to a hundredth of its way."""
    for path, moved, expected, began in _zip(ours, alone, untrained):
        way = np.linalg.norm(expected - began)
        assert np.linalg.norm(moved - expected) <= 0.01 * way + 1e-6, path


def _zip(*trees):
    leaves = [jax.tree_util.tree_leaves_with_path(tree) for tree in trees]
    for found in zip(*leaves, strict=True):
        yield jax.tree_util.keystr(found[0][0]), *(np.asarray(x) for _, x in found)


# Of the even ones the two that lie crosswise: a stack that mixed up seeds and numbers would swap them.
@pytest.mark.parametrize(("values", "compared"), [(RAGGED, (0, 1, 2, 3)), (EVEN, (1, 2))], ids=["ragged", "even"])
def test_each_run_of_a_stack_is_the_run_alone(values, compared, tmp_path):
    configs = [small(**QUICK, **own) for own in values]
    assert stack.group(configs) == [[0, 1, 2, 3]]
    workdirs, errors = take(configs, tmp_path / "stack", steps=STEPS)
    assert errors == [None] * 4
    for k in compared:
        run.run(configs[k], tmp_path / f"alone{k}", steps=STEPS)
        assert_same_run(workdirs[k], tmp_path / f"alone{k}")
    measured = [row["step"] for row in rows.read_rows(workdirs[0] / rows.ROWS) if KNN in row]
    assert measured == ([4] if values is EVEN else [])
    logged = [("vrns" in rows.read_rows(workdir / rows.ROWS)[0]) for workdir in workdirs]
    assert logged == [bool(own.get(WEIGHT)) for own in values]
    losses = {rows.read_rows(workdir / rows.ROWS)[-1]["loss"] for workdir in workdirs}
    assert len(losses) == 4


def test_what_does_not_differ_is_no_input():
    configs = [small(**{TEMPERATURE: t}) for t in (0.1, 0.2)]
    jobs = stack.prepare(configs, [pathlib.Path("a"), pathlib.Path("b")])
    assert stack.Stack(jobs).traced == [TEMPERATURE]
    assert [job.config.loss.kwargs.temperature for job in jobs] == [0.1, 0.2]


def test_fields_that_are_no_numbers_of_the_step_make_groups():
    values = [{}, {"batch_size": 32}, {SEED: 1}, {"epochs": 1}, {"loss.learnable": True}, {WEIGHT: 1.0, SEED: 5}]
    assert stack.group([small(**own) for own in values]) == [[0, 2, 5], [1], [3], [4]]


def test_layouts_share_views_where_every_seed_has_as_many_runs():
    def shape(*seeds):
        jobs = [Fake(small(seed=seed), None) for seed in seeds]
        layout = stack.Layout.of(jobs)
        stacked = layout.stack([{"x": np.full(2, k)} for k in range(len(jobs))])
        assert [tree["x"].tolist() for tree in layout.unstack(stacked)] == [[k, k] for k in range(len(jobs))]
        return layout.runs.shape

    assert shape(0, 0, 0) == (1, 3)
    assert shape(0, 1, 0, 1) == (2, 2)
    assert shape(0, 1, 0) == (3, 1)


class Fake(NamedTuple):
    config: Any
    order: Any


EVERY = {"checkpoint.every": 2, TEMPERATURE: 0.5}


def test_a_stack_that_is_stopped_resumes_and_ends_the_same(tmp_path, monkeypatch):
    configs = [small(**QUICK, **EVERY, **{WEIGHT: weight}) for weight in (0.0, 5.0)]
    take(configs, tmp_path / "whole", steps=STEPS)
    step, count = stack.Stack.step, itertools.count(1)

    def stop_at_the_third(self, placed, batch):
        if next(count) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, placed, batch)

    with monkeypatch.context() as patch:
        patch.setattr(stack.Stack, "step", stop_at_the_third)
        with pytest.raises(Interrupted, match="SIGTERM: stopped after step 3"):
            take(configs, tmp_path / "stopped", steps=STEPS)
    assert all(storage.list_steps(tmp_path / "stopped" / str(k) / "checkpoints")[-1] == 3 for k in range(2))
    workdirs, errors = take(configs, tmp_path / "stopped", steps=STEPS)
    assert errors == [None, None]
    for k, workdir in enumerate(workdirs):
        ours, whole = ((folder / rows.ROWS).read_text() for folder in (workdir, tmp_path / "whole" / str(k)))
        assert ours == whole


def test_runs_at_different_steps_go_on_each_from_its_own(tmp_path):
    configs = [small(**QUICK, **EVERY, **{RATE: rate}) for rate in (0.1, 0.2, 0.3)]
    train(configs[1], tmp_path / "1", 2)  # alone, as the other engine takes it
    workdirs, errors = take(configs, tmp_path, steps=STEPS)
    assert errors == [None] * 3
    assert [len(rows.read_rows(workdir / rows.ROWS)) for workdir in workdirs] == [STEPS] * 3
    for workdir in (workdirs[1], tmp_path / "alone"):  # and alone again
        run.run(configs[1], workdir, steps=STEPS + 1)
    assert_same_run(workdirs[1], tmp_path / "alone")


def test_a_run_that_fails_fails_alone(tmp_path):
    # A rate at which the parameters leave the numbers at once.
    configs = [small(**QUICK, **EVERY, **{RATE: rate, "optimizer.warmup_epochs": 0.0}) for rate in (0.1, 1e38, 0.2)]
    (tmp_path / "2").mkdir()
    with storage.hold_lock(tmp_path / "2"):
        workdirs, errors = take(configs, tmp_path, steps=STEPS)
    assert errors[0] is None and (workdirs[0] / "summary.json").exists()
    assert isinstance(errors[1], NonFiniteError) and (workdirs[1] / "nonfinite.jsonl").exists()
    assert isinstance(errors[2], UsageError) and "got one in use" in str(errors[2])
    assert not any((workdir / "summary.json").exists() for workdir in workdirs[1:])


def branching(u, v, *, ids, axis_name, temperature: float = 0.5):
    """A loss that is written for Python numbers alone."""
    return losses.dcl(u, v, ids=ids, axis_name=axis_name, temperature=0.1 if temperature < 0.3 else 0.5)


def test_a_part_that_branches_on_a_number_is_refused_in_a_line(tmp_path):
    name = f"{__name__}:branching"
    configs = [small(**{"loss.name": name, TEMPERATURE: t}) for t in (0.1, 0.5)]
    with pytest.raises(
        UsageError, match=r"--engine=vmap: expected a step that takes loss\.kwargs\.temperature as"
    ) as e:
        take(configs, tmp_path / "new")
    assert "\n" not in str(e.value) and "--engine=processes" in str(e.value) and not (tmp_path / "new").exists()
