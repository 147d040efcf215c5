"""Each benchmark runs on its smallest scale, and checks the values that it times."""

import contextlib

import pytest

from configs import smoke
from contrastive_jax.data import sources
from contrastive_jax.jobs import command_line
from contrastive_jax.jobs.sweeps import program
from experiments.benchmarks import convolution, feeding, losses, moments, ring, sets, sweep, training


@pytest.fixture
def smallest_job(monkeypatch):
    """The smoke preset, and no PyTorch, in place of the jobs."""
    monkeypatch.setattr(
        training, "JOBS", {"smoke": lambda: (smoke.get_config(), sources.load("digits", split="train"))}
    )
    monkeypatch.setattr(training, "make_torch_stepper", lambda config, source: None)


def test_the_training_step(smallest_job, capsys):
    assert training.main(["--jobs=smoke", "--steps=2"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| smoke")]
    _, name, batch, ours, without, ratio, *peer, _ = (cell.strip() for cell in row.split("|"))
    assert (name, batch, peer) == ("smoke", "64", ["", ""])
    assert float(ours) > 0 and float(without) > 0 and " to " in ratio


def test_jobs_that_are_not_there(capsys):
    assert training.main(["--jobs=digits,mnist"]) == 2
    known = ", ".join(training.JOBS)
    assert capsys.readouterr().err == f"error: --jobs: expected some of {known}, got mnist.\n"


@pytest.mark.parametrize("library", losses.OURS)
def test_a_loss(library):
    found = losses.measure_cell("dhel", library, 64, 1)
    assert found.keys() == {"seconds", "range", "megabytes", "floors"}


def test_another_value_is_not_timed(monkeypatch):
    monkeypatch.setattr(losses, "make_peer", lambda library, name, u, v: lambda: (0.0, 0 * u))
    assert losses.measure_cell("dhel", "torch", 64, 1)["failed"].startswith("another value: ")


def test_the_ring_holds_less_and_has_the_same_value():
    (value, megabytes, times), (of_ring, less, _) = (
        ring.measure(512, implementation, devices=8, repeats=1) for implementation in ("blockwise", "ring")
    )
    assert of_ring == pytest.approx(value, rel=1e-5)
    assert less < megabytes and len(times) == 1


def test_copies_are_those_of_single_calls():
    one_by_one, *mapped = (call() for call in sets.make_calls("info_nce", 2, 8, "blockwise"))
    values = [float(value) for value, _ in one_by_one]
    assert float(mapped[0][0]) == pytest.approx(sum(values) / 2, rel=1e-5)
    assert mapped[1][0].tolist() == pytest.approx(values, rel=1e-5)
    assert mapped[2][0].shape == (2,)
    assert len(sets.measure("info_nce", 2, 8, "dense", repeats=1)) == 4


def test_moments_are_as_exact_as_all_pairs(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["moments", "--sizes=512", "--alone=512", "--repeats=1"])
    assert moments.main() == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["blockwise", "moments", "moments, ids", "moments"]
    assert all(float(error) < 1e-5 for row in rows for error in row[-2:])


def test_feeding_reads_every_photograph(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(feeding, "has_torchvision", lambda: False)
    assert feeding.main(["--images=8", "--repeats=1", "--cores=1", f"--folder={tmp_path}"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 1 |")]
    assert row.startswith("| 1 | contrastive_jax | ")
    assert [kind.workers for kind in feeding.list_kinds([1, 4])] == [None, None]
    epoch = feeding.open_ours(tmp_path)
    assert feeding.measure_epoch(epoch(), contextlib.nullcontext([5]), 2)[::3] == (8, 3)


def test_rows_compare_neighbouring_epochs():
    ours = [feeding.Epoch(100, seconds, seconds, 2**20) for seconds in (9, 1, 2)]
    theirs = [feeding.Epoch(100, seconds, 2 * seconds, 2**21) for seconds in (9, 2, 2)]
    row = feeding.format_row(feeding.Kind("torchvision, 2 workers", 2, 2), theirs, ours)
    assert row == "| 2 | torchvision, 2 workers | 50 (50 to 50) | 25 | 40.00 | 2 | 1.50 (1.00 to 2.00) |"


def test_both_forms_of_a_convolution(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["convolution", "--sizes=2", "--channels=4", "--batches=2", "--seconds=0"])
    convolution.main()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:4] for row in rows] == [["2", "1", "4", "2"], ["2", "2", "4", "2"]]
    assert all(row[6] in convolution.FORMS and row[7] in convolution.FORMS for row in rows)


def test_both_ways_to_the_gradient_of_a_kernel(monkeypatch, capsys):
    arguments = ["--gradient", "--sizes=4", "--channels=4", "--batches=2", "--seconds=0"]
    monkeypatch.setattr("sys.argv", ["convolution", *arguments])
    convolution.main()
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert "patches, ms" in header and len(rows) == 2
    for row in rows:
        *_, taken, faster = [cell.strip() for cell in row.split("|")[1:-1]]
        assert taken == "convolution" and faster in convolution.GRADIENTS


def test_a_sweep_beside_its_runs(monkeypatch, capsys):
    commands = []

    def time_command(arguments):
        commands.append(arguments)
        return sweep.Seconds(10.0, 20.0) if arguments[0] == "experiments.train" else sweep.Seconds(40.0, 80.0)

    monkeypatch.setattr(sweep, "time_command", time_command)
    assert sweep.main(["--alone=2", "--epochs=3", "--hidden=8"]) == 0
    assert [arguments[0] for arguments in commands] == ["experiments.train"] * 2 + ["experiments.sweep"]
    assert len(program.parse(commands[2][1:]).cells) == 16
    alone = [command_line.parse(arguments[1:]).config for arguments in commands[:2]]
    assert [(one.loss.kwargs.temperature, one.epochs) for one in alone] == [(0.1, 3), (0.5, 3)]
    assert alone[0].model.kwargs.hidden == (8,)
    assert "| ratio | 0.25 | 0.25 |" in capsys.readouterr().out


def test_a_command_is_timed_and_its_failure_raised(capsys):
    assert sweep.time_command(["platform"]).clock > 0
    with pytest.raises(RuntimeError, match="no_such_module"):
        sweep.time_command(["no_such_module"])
    assert sweep.main(["--runs=12"]) == 2 and "expected a multiple of 8" in capsys.readouterr().err
