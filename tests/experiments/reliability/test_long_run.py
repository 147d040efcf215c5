"""The watch over long runs: a missing or repeated step is noticed, and the pace is right."""

import json

import pytest

pytest.importorskip("psutil", reason="psutil is of the extra bench")
from experiments.reliability import long_run


def write_log(workdir, steps):
    (workdir / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in steps))


def test_each_step_once(tmp_path):
    write_log(tmp_path, [0, 1, 2])
    assert long_run.check_logs(tmp_path, 3).startswith("metrics.jsonl has each of the 3 steps once, in order.")


@pytest.mark.parametrize("steps", [[0, 1], [0, 2, 1], [0, 1, 1, 2], [0, 1, 2, 3]])
def test_steps_that_are_missing_or_too_many(steps, tmp_path):
    write_log(tmp_path, steps)
    with pytest.raises(SystemExit, match=f"expected the rows of steps 0 to 2, got {len(steps)} others"):
        long_run.check_logs(tmp_path, 3)


def test_the_pace_is_since_the_sample_before():
    samples = [
        long_run.Sample(step=100, seconds=9.0, memory=5_000_000, files=7, threads=3),
        long_run.Sample(step=300, seconds=10.0, memory=6_000_000, files=8, threads=4),
    ]
    _, _, first, second = long_run.format_rows(iter(samples))
    assert first == "| 100 | 5 | 7 | 3 |  |"
    assert second == "| 300 | 6 | 8 | 4 | 5.0 |"


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    assert long_run.main([f"--workdir={tmp_path}"]) == 2
    assert "expected a new folder, got one that exists" in capsys.readouterr().err
