"""The tables over several runs."""

import json

import pytest

from experiments import compare


def write_run(workdir, accuracy):
    """A finished run; one without labels for an accuracy of None."""
    scores = {"trained encoder": {"linear_probe": accuracy, "knn": 1.0, "few_labels": 0.25}}
    moments = {"mean": -0.25, "variance": 0.125}
    summary = {
        "evaluation": {} if accuracy is None else scores,
        "seconds": 9.6,
        "environment": {"devices": 1, "device": "cpu", "cpus": 2},
        "contrast_size": 32,
        "training_set_similarity": {"trained encoder": {"positive": {"mean": 0.5}, "cross_view": moments}},
    }
    workdir.mkdir()
    (workdir / "summary.json").write_text(json.dumps(summary))
    return str(workdir)


def test_means_and_each_run(tmp_path, capsys):
    runs = [write_run(tmp_path / str(k), accuracy) for k, accuracy in enumerate((0.5, 0.7))]
    assert compare.main(runs) == 0
    out = capsys.readouterr().out
    assert "| trained encoder | 60.0 (50.0, 70.0) | 100.0 (100.0, 100.0) | 25.0 (25.0, 25.0) |" in out
    assert "| 1 | 32 | 70.0 | 100.0 | 25.0 | 0.5000 | -0.2500 | 0.125 |" in out
    assert "Seconds: 10, 10; 1 x cpu, 2 CPUs." in out


def test_runs_without_labels_have_no_scores(tmp_path, capsys):
    assert compare.main([write_run(tmp_path / "images", None)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| run | m | s_pos mean | s_neg mean (cross-view) | s_neg variance (cross-view) |"
    assert lines[2] == "| images | 32 | 0.5000 | -0.2500 | 0.125 |"


def test_runs_with_and_without_labels_in_one_table(tmp_path, capsys):
    assert compare.main([write_run(tmp_path / "scored", 0.5), write_run(tmp_path / "images", None)]) == 0
    out = capsys.readouterr().out
    assert "| scored | 32 | 50.0 | 100.0 | 25.0 | 0.5000 | -0.2500 | 0.125 |" in out
    assert "| images | 32 |  |  |  | 0.5000 | -0.2500 | 0.125 |" in out
    assert "representation" not in out


@pytest.mark.parametrize(("arguments", "got"), [(["runs/none"], "no summary.json in runs/none"), ([], "none")])
def test_what_is_no_finished_run_is_one_line(arguments, got, capsys):
    assert compare.main(arguments) == 2
    assert capsys.readouterr().err == f"error: expected the workdirs of finished runs, got {got}.\n"
