"""Runs that are killed end as if they had not been; and the harness notices a difference and overwrites nothing."""

import random
import subprocess
import sys

import numpy as np
import pytest

from experiments.reliability import chaos
from tests.jobs.support import MLP, QUICK, as_options, flags


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    """Two workdirs that are alike; of the second the state may be changed."""
    states = {}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 0}\n')
        np.savez(tmp_path / name / "similarity.npz", edges=np.arange(3))
        states[tmp_path / name] = {"params": np.ones(2)}
    monkeypatch.setattr(chaos, "_read_final_state", states.__getitem__)
    return tmp_path / "first", tmp_path / "second", states


def test_runs_that_are_alike(two_runs):
    first, second, _ = two_runs
    chaos._assert_same(first, second)


@pytest.mark.parametrize("what", ["state", "log", "histograms"])
def test_a_difference_is_noticed(two_runs, what):
    first, second, states = two_runs
    if what == "state":
        states[second]["params"][1] = np.nextafter(1, 2)
    elif what == "log":
        (second / "metrics.jsonl").write_text('{"step": 0}\n{"step": 0}\n')
    else:
        np.savez(second / "similarity.npz", edges=np.arange(1, 4))
    with pytest.raises(AssertionError):
        chaos._assert_same(first, second)


def start(program):
    def start(workdir, options):
        workdir.mkdir(exist_ok=True)
        (workdir / "screen.log").write_text("")
        return subprocess.Popen([sys.executable, "-c", program])

    return start


def test_a_run_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos, "_start", start("import time; time.sleep(600)"))
    monkeypatch.setattr(chaos, "MOMENTS", {"starting": chaos.MOMENTS["starting"]._replace(longest=0.1)})
    killed = chaos._kill(tmp_path / "run", [], "starting", random.Random(0))
    assert killed.moment == "starting" and killed.kept is None and killed.logged == 0


def test_a_run_that_ends_first_is_not_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos, "_start", start(""))
    assert chaos._kill(tmp_path / "run", [], "in a step", random.Random(0)) is None


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    assert chaos.main([f"--workdir={tmp_path}"]) == 2
    assert "expected a new folder, got one that exists" in capsys.readouterr().err


def test_five_kills_leave_no_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags(devices=1))
    shorter = {**MLP, **QUICK, "epochs": 4, "checkpoint.every": 8}
    monkeypatch.setattr(chaos, "_MOST_LOGGED", 25_000)
    for name, longest in (("starting", 4.0), ("evaluating", 0.5)):
        monkeypatch.setitem(chaos.MOMENTS, name, chaos.MOMENTS[name]._replace(longest=longest))
    # Of this seed the evaluation comes last, so that one run is killed five times.
    killed = list(chaos.kill_runs(tmp_path, [*chaos.OPTIONS, *as_options(shorter)], kills=5, seed=14))
    assert sorted(kill.moment for kill in killed) == sorted(chaos.MOMENTS)
    assert max(kill.logged for kill in killed) == 88  # which is the one that was evaluating
