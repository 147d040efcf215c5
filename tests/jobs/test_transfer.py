"""Scores on another data set: on the run's own they are those of the run."""

import json

import jax
import numpy as np
import pytest

import contrastive_jax
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import evaluate, transfer
from contrastive_jax.jobs import job as job_lib
from experiments import evaluate as program
from tests.jobs.support import small, train

FIELDS = {"evaluation.probe_epochs": 2, "evaluation.draws": 1, "evaluation.batch_size": 64}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three steps: its job, its last state and its encoder."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    given = small(**FIELDS)
    with jax.numpy_dtype_promotion("standard"):
        job = job_lib.prepare(given, workdir)
        state = jax.tree.map(np.asarray, train(given, workdir, 3, job=job))
        (workdir / "summary.json").write_text("{}")
        return job, state, contrastive_jax.load(workdir)


def test_on_the_runs_own_data_the_scores_are_the_runs(trained, capsys):
    job, state, encoder = trained
    expected = evaluate.evaluate(job, state)
    found = transfer.transfer(encoder, "digits")
    assert found.scores == expected.scores and list(found.scores) == [
        "raw pixels",
        "untrained encoder",
        "trained encoder",
    ]
    for name, geometry in expected.geometry.items():
        np.testing.assert_allclose(found.geometry[name], geometry, rtol=1e-5)
    assert transfer.format_tables(found).splitlines()[0].startswith("| representation | linear probe | 200-NN |")
    path = transfer.save(found, encoder, "digits")
    assert path == encoder.workdir / "evaluation-digits.json"
    written = json.loads(path.read_text())
    assert written["evaluation"]["trained encoder"] == found.scores["trained encoder"]._asdict()
    assert written["encoder"]["digest"] == encoder.digest and written["settings"]["probe_epochs"] == 2
    assert (encoder.workdir / "summary.json").read_text() == "{}"
    assert "Evaluating trained encoder" in capsys.readouterr().err


def save(path, count=60, channels=1, **arrays):
    images = np.random.default_rng(0).integers(0, 256, (count, 12, 11, channels), np.uint8)
    np.savez(path, **{"image": images, "label": np.arange(count) % 3} | arrays)
    return f"npz:{path}"


def test_another_data_set_from_the_command_line(trained, tmp_path, capsys):
    _, _, encoder = trained
    source, out = save(tmp_path / "other.npz"), tmp_path / "other.json"
    options = [f"--workdir={encoder.workdir}", f"--source={source}", f"--out={out}"]
    program.main([*options, "--config.evaluation.knn_neighbours=7", "--config.evaluation.raw_pixels=false"])
    written = json.loads(out.read_text())
    assert list(written["evaluation"]) == ["untrained encoder", "trained encoder"]
    assert written["settings"]["knn_neighbours"] == 7 and written["settings"]["num_classes"] == 3
    said = capsys.readouterr().out
    assert "| 7-NN |" in said and "projections of 12 test images" in said and f"{out} holds these numbers" in said


def test_pixels_too_many_to_score_are_left_out(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "MAX_RAW_PIXELS_GIB", 1e-6)
    found = transfer.transfer(trained[2], save(tmp_path / "other.npz"))
    assert list(found.scores) == ["untrained encoder", "trained encoder"]
    assert "Skipping the scores of raw pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.epochs=3", "--config.epochs=3'?: expected an option, or --config.evaluation.FIELD=VALUE"),
        ("--colour", "--colour'?: expected an option"),
        ("--config.evaluation.draws=0", "config.evaluation.draws=0: expected a whole number >= 1"),
        ("--config.evaluation.nothing=0", "config.evaluation.nothing: expected the name of a field"),
    ],
)
def test_other_fields_are_refused(override, message, trained):
    with pytest.raises(UsageError, match=message):
        program.main([f"--workdir={trained[2].workdir}", "--source=digits", override])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 3}, "expected images of 1 channels, as the encoder was trained on, got 3"),
        ({"count": 20, "label": np.arange(20) // 19}, "cannot be split 80/20 by label"),
        ({"label": np.arange(60) // 54}, "labels_per_class=5: expected at most the 5 training images of class 1"),
        ({"label": np.zeros(3, int)}, "expected one for each of the 60 images, got 3"),
    ],
)
def test_data_that_cannot_be_scored(options, message, trained, tmp_path):
    config = trained[2].config.copy_and_resolve_references()
    config.evaluation.labels_per_class = 6 if "at most" in message else 5
    source = save(tmp_path / "other.npz", **options)
    message = message.replace("class=5", "class=6") if "at most" in message else message
    with pytest.raises(UsageError, match=message) as caught:
        transfer.transfer(trained[2], source, config=config)
    assert f"--source={source}" in str(caught.value)
