"""A run as far as it has come: going on, interrupted or finished, and never touched."""

import jax
import numpy as np
import pytest

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import run, show
from contrastive_jax.jobs.logs import pictures, rows
from contrastive_jax.jobs.workdir import claim_workdir
from experiments import show as program
from tests.jobs.support import QUICK, drawing, small, train

FIELDS = {**QUICK, "batch_size": 256, "epochs": 2, "evaluation.every": 1, "evaluation.subset": 50}


@pytest.fixture
def drawn(monkeypatch):
    """What was to be drawn, without drawing it."""
    found = {}

    def keep(path, counts, logged, training_set, **rest):
        found.update(path=path, counts=counts, rows=logged, training_set=training_set, **rest)

    monkeypatch.setattr(pictures, "save_similarity_picture", keep)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a finished run, and its tables as the run printed them."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    with jax.numpy_dtype_promotion("standard"):
        run.run(small(**FIELDS), workdir)
    return workdir


def files_of(workdir):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in workdir.rglob("*") if "show" not in p.parts}


def test_a_finished_run(finished, drawn, tmp_path, capsys):
    before = files_of(finished)
    program.main([str(finished), f"--out={tmp_path / 'out'}"])
    said = capsys.readouterr().out
    assert files_of(finished) == before and f"The picture is {tmp_path / 'out' / 'similarity.png'}." in said
    assert said.startswith("Step 10 of 10, epoch 2 of 2; finished.")
    for line in (
        "| representation | linear probe | 200-NN |",
        "| epoch | knn | alignment |",
        "| training set, trained",
    ):
        assert line in said
    assert (tmp_path / "out" / "table.md").read_text().strip() in said
    assert drawn["counts"].shape == (10, 3, 100) and len(drawn["rows"]) == 10
    counts = np.load(finished / "similarity.npz")
    for k, each in enumerate(drawn["training_set"]):
        np.testing.assert_array_equal(each.positive.counts, counts["training_set_positive"][k])
        assert each.positive.count == 1437


def test_the_picture_is_drawn(finished):
    with drawing(True):
        show.show(finished)
    assert (finished / "show" / "similarity.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_pictures(tmp_path):
    """`show` draws it when it is wanted."""
    with drawing(True):
        run.run(small(**FIELDS | {"epochs": 1, "log.pictures": False}), tmp_path)
        assert not list(tmp_path.glob("*.png")) and (tmp_path / "similarity.npz").exists()
        show.show(tmp_path)
    assert (tmp_path / "show" / "similarity.png").exists()


@pytest.mark.parametrize("tail", [b'{"step": 5, "lo', b'{"step": 5, "loss": 1.0}\n', b"\0\0\n", b""])
def test_a_run_that_goes_on(tail, drawn, tmp_path):
    """Its last line is half written, or its histogram is not there yet."""
    job = job_lib.prepare(small(**FIELDS), tmp_path)
    train(job.config, tmp_path, 5, job=job)
    with claim_workdir(job):  # as the run holds it
        with open(tmp_path / rows.ROWS, "ab") as file:
            file.write(tail)
        with open(tmp_path / rows.COUNTS, "ab") as file:
            file.write(tail)
        before = files_of(tmp_path)
        tables = show.show(tmp_path)
        assert files_of(tmp_path) == before
    assert tables.startswith("Step 5 of 10, epoch 1 of 2; not evaluated yet.")
    assert "| epoch | knn |" in tables and "linear probe" not in tables
    assert len(drawn["rows"]) == len(drawn["counts"]) == 5 and drawn["training_set"] is None
    assert drawn["path"] == tmp_path / "show" / "similarity.png"
    assert drawn["title"] == "simclr on digits, m = 256, n = 1437"


def test_without_the_distribution(drawn, tmp_path):
    train(small(**FIELDS | {"log.distribution": False}), tmp_path, 2)
    assert show.show(tmp_path).startswith("Step 2 of 10")
    assert drawn["counts"] is None and len(drawn["rows"]) == 2


def test_a_summary_of_fewer_steps_is_not_of_this_log(finished, drawn, tmp_path):
    """A run that was stopped early, evaluated, and goes on."""
    train(small(**FIELDS), tmp_path, 5)
    (tmp_path / "summary.json").write_text((finished / "summary.json").read_text())
    assert "; not evaluated yet." in show.show(tmp_path)


def test_steps_can_be_seen_before_the_log_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "SECONDS_UNTIL_SHOWN", 0.0)
    with rows.StepLog(tmp_path, start=0, num_bins=0, tensorboard_every=1) as log:
        log.write({"step": 0, "loss": 1.0}, None, speed={})
        assert rows.read_whole_rows(tmp_path / rows.ROWS) == [{"step": 0, "loss": 1.0}]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "expected the workdir of a run, got no such folder"),
        (lambda path: path.mkdir(), "expected the workdir of a run, got a folder without config.json"),
    ],
)
def test_no_run(prepare, message, tmp_path):
    prepare(tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        show.show(tmp_path / "run")


def test_before_the_first_step_and_onto_the_run_itself(finished, tmp_path):
    for name in ("config.json", "data.json"):
        (tmp_path / name).write_text((finished / name).read_text())
    with pytest.raises(UsageError, match="expected a run that has logged a step, got one that has not"):
        show.show(tmp_path)
    with pytest.raises(UsageError, match="expected another folder than the run's own"):
        show.show(finished, finished / ".")


def test_what_was_measured_is_drawn_at_whole_steps():
    from matplotlib.figure import Figure

    rows = [{"step": step, **{f"evaluation_{name}": 0.1 * step for name in pictures._MEASURED}} for step in (4, 9, 14)]
    figure = Figure()
    panels = figure.subplots(1, 3)
    pictures._draw_measured(panels, rows)
    for axes in panels:
        (line,) = axes.get_lines()
        assert line.get_xdata().tolist() == [5, 10, 15] and not line.get_clip_on()
        assert all(tick == round(tick) for tick in axes.get_xticks())
