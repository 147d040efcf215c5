"""Steps whose loss or gradient is not finite: the run ends, with what is needed to look into them, or skips them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.errors import NonFiniteError
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import run
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine.checkpoints import digest
from contrastive_jax.training import gradient
from tests.jobs.support import QUICK, small, train

SKIP = {"on_nonfinite": "skip", "checkpoint.every": 2}


@pytest.fixture
def spoil(monkeypatch):
    """Make the loss, the gradient or both of some steps no number, and the running statistics with them."""
    direct = gradient.compute_in_one_pass

    def spoil(steps, loss=jnp.nan, grads=jnp.nan):
        def spoilt(program, state, batch, axis_name):
            found, (parts, *rest, fresh) = direct(program, state, batch, axis_name)
            now = jnp.isin(state.step, jnp.array(steps))
            found = jax.tree.map(lambda x: jnp.where(now, x + grads, x), found)
            parts |= {"loss": jnp.where(now, parts["loss"] + loss, parts["loss"])}
            rest = jax.tree.map(lambda x: jnp.where(now, x + grads, x), rest)
            return found, (parts, *rest, fresh)

        monkeypatch.setattr(gradient, "compute_in_one_pass", spoilt)

    return spoil


def records(workdir):
    return [json.loads(line) for line in (workdir / "nonfinite.jsonl").read_text().splitlines()]


def host(state):
    return jax.tree.map(np.asarray, state)


@pytest.mark.parametrize(("loss", "grads"), [(jnp.nan, jnp.nan), (jnp.inf, 0.0), (0.0, jnp.inf)])
def test_by_default_the_run_stops_and_keeps_the_step(spoil, loss, grads, tmp_path):
    spoil([3], loss, grads)
    job_config = small(**{"checkpoint.every": 2})
    job = job_lib.prepare(job_config, tmp_path)
    said = r"step 3: expected finite numbers, got loss .*nonfinite.jsonl holds the parts .*; the checkpoint of step 2"
    for _ in range(2):  # the same command comes to the same step, which is how it is reproduced
        with pytest.raises(NonFiniteError, match=said) as error:
            train(job_config, tmp_path, 6, job=job)
        assert "or set config.on_nonfinite=skip to skip such steps" in str(error.value)
        (record,) = records(tmp_path)
        assert record["step"] == 3 and record["ids"] == job.order.indices(3).tolist()
        assert ("simclr" in record) and not np.isfinite([float(record["loss"]), float(record["gradient_norm"])]).all()


def test_skipped_steps_change_nothing_but_the_counts(spoil, tmp_path, capsys):
    spoil([3, 4])
    job_config = small(**SKIP)
    job = job_lib.prepare(job_config, tmp_path)
    before, after = (host(train(job_config, tmp_path, steps, job=job)) for steps in (3, 5))
    assert (after.step, after.skipped, after.skipped_in_a_row) == (5, 2, 2)
    counts = {"step": before.step, "skipped": before.skipped, "skipped_in_a_row": before.skipped_in_a_row}
    assert digest(after._replace(**counts)) == digest(before)
    said = capsys.readouterr().err
    assert "step 3: expected finite numbers, got loss nan" in said
    assert "Skipped the step; 0 were skipped before it." in said and "Skipped the step; 1 were" in said

    final = host(train(job_config, tmp_path, 7, job=job))
    assert (final.step, final.skipped, final.skipped_in_a_row) == (7, 2, 0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((final.params, final.model_state, final.opt_state)))
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), final.params, before.params)
    assert min(jax.tree.leaves(moved)) > 0

    rows = logs.read_rows(tmp_path / "metrics.jsonl")
    assert [row["skipped"] for row in rows] == [0, 0, 0, 1, 2, 2, 2]
    assert [row["skipped_in_a_row"] for row in rows] == [0, 0, 0, 1, 2, 0, 0]
    assert [np.isnan(row["loss"]) for row in rows] == [False] * 3 + [True] * 2 + [False] * 2
    # The schedule does not move while nothing is learnt, and the log says what was used.
    assert rows[5]["learning_rate"] == rows[3]["learning_rate"] > rows[2]["learning_rate"]
    assert rows[6]["learning_rate"] == pytest.approx(float(job.program.schedule(4)))
    assert [record["step"] for record in records(tmp_path)] == [3, 4]

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_run_that_skips_is_resumed_bit_for_bit(spoil, tmp_path):
    spoil([2, 3, 5])
    job_config = small(**SKIP)
    job = job_lib.prepare(job_config, tmp_path)
    whole = host(train(job_config, tmp_path / "whole", 7, job=job))
    for steps in (3, 5, 7):
        state = host(train(job_config, tmp_path / "resumed", steps, job=job))
    assert digest(state) == digest(whole)
    for name in ("metrics.jsonl", "nonfinite.jsonl", "similarity.counts"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_too_many_in_a_row_stop_the_run(spoil, tmp_path):
    spoil([1, 3, 4, 5])
    with pytest.raises(NonFiniteError, match=r"step 5: .*more than config.nonfinite_limit=2 steps in a row") as error:
        train(small(**SKIP, nonfinite_limit=2), tmp_path, 8)
    assert "on_nonfinite=skip" not in str(error.value)
    assert [record["skipped_in_a_row"] for record in records(tmp_path)] == [1, 1, 2, 3]


def test_where_all_is_finite_skipping_changes_nothing(tmp_path):
    states = [train(small(on_nonfinite=mode), tmp_path / mode, 3) for mode in ("stop", "skip")]
    assert digest(host(states[0])) == digest(host(states[1]))
    assert not (tmp_path / "skip" / "nonfinite.jsonl").exists()


def test_a_summary_is_json_though_its_last_step_was_skipped(spoil, tmp_path):
    spoil([1])
    assert run.run(small(**SKIP, **QUICK), tmp_path, steps=2)["final"]["loss"] is None
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)


def test_parameters_that_are_not_finite_are_skipped_too(tmp_path):
    """Where loss and gradient are finite but the update is too large."""
    too_fast = {"optimizer.learning_rate": 1e30, "optimizer.warmup_epochs": 0.0}
    state = train(small(**SKIP, **too_fast), tmp_path, 2)
    assert state.skipped == 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(host(state).params))


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def test_a_run_that_stopped_goes_on_skipping(spoil, tmp_path):
    """What to do at such a step may change within a run, as may what is kept of it."""
    spoil([3])
    with pytest.raises(NonFiniteError):
        train(small(**{"checkpoint.every": 2}), tmp_path, 5)
    assert train(small(**SKIP), tmp_path, 5).skipped == 1
    assert '"on_nonfinite": "skip"' in (tmp_path / "config.json").read_text()
