"""The table over several runs."""

import json

from experiments import compare


def test_means_and_each_run(tmp_path, capsys):
    for run, accuracy in enumerate((0.5, 0.7)):
        scores = {"trained encoder": {"linear_probe": accuracy, "knn": 1.0, "few_labels": 0.25}}
        environment = {"devices": 1, "device": "cpu", "cpus": 2}
        (tmp_path / str(run)).mkdir()
        moments = {"mean": -0.25, "variance": 0.125}
        similarity = {"trained encoder": {"positive": {"mean": 0.5}, "cross_view": moments}}
        summary = {"evaluation": scores, "seconds": 9.6, "environment": environment, "contrast_size": 32}
        summary["training_set_similarity"] = similarity
        (tmp_path / str(run) / "summary.json").write_text(json.dumps(summary))
    assert compare.main([str(tmp_path / "0"), str(tmp_path / "1")]) == 0
    out = capsys.readouterr().out
    assert "| trained encoder | 60.0 (50.0, 70.0) | 100.0 (100.0, 100.0) | 25.0 (25.0, 25.0) |" in out
    assert "| 1 | 32 | 70.0 | 100.0 | 25.0 | 0.5000 | -0.2500 | 0.125 |" in out
    assert "Seconds: 10, 10; 1 x cpu, 2 CPUs." in out


def test_missing_runs(tmp_path, capsys):
    assert compare.main([str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err
    assert compare.main([]) == 2
