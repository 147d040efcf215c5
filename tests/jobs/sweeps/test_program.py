"""The command line of a sweep: which runs it starts, what it skips, what it says of those that fail."""

import csv
import errno
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from sklearn.datasets import load_digits

import contrastive_jax
from contrastive_jax.errors import Interrupted, UsageError
from contrastive_jax.jobs import command_line, weights
from contrastive_jax.jobs.machine import processes, storage
from contrastive_jax.jobs.sweeps import cluster, local, program, results, stacked_runs
from experiments import embed, evaluate, export, show
from tests.jobs.support import MLP, QUICK, as_options

GRID = "--grid=optimizer.learning_rate=0.1,0.2 seed=0,1"
EACH_ENGINE = pytest.mark.parametrize(
    "engine",
    [["--engine=processes"], ["--engine=vmap"], ["--engine=slurm", "--slurm=timeout_min=5", "--workers=9"]],
    ids=program.ENGINES,
)


def arguments(workdir, *more, grid=GRID):
    return ["--config=configs/smoke.py", f"--workdir={workdir}", grid, "--config.model.name=mlp", *more]


def finish(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / "summary.json").write_text(json.dumps({"steps": 44, "steps_of_the_whole_run": 44, "seed": config.seed}))


@pytest.fixture
def taken(monkeypatch):
    """Runs that are not taken but counted: those of the first rate succeed, the others fail while `fails` holds."""
    taken, fails = [], [True]

    def run_all(tasks, places, ended):
        for task in tasks:
            taken.append(task.name)
            bad = "rate=0.2" in task.name and fails
            if not bad:
                finish(task.output.parents[1] / task.name, command_line.parse(task.command[4:]).config)
            task.output.parent.mkdir(exist_ok=True)
            task.output.write_text("error: not finite\n" if bad else "")
            ended(task, 2 if bad else 0)

    def run_stack(configs, workdirs, ended, *, steps):
        for k, (config, workdir) in enumerate(zip(configs, workdirs, strict=True)):
            taken.append(workdir.name)
            bad = "rate=0.2" in workdir.name and fails
            if not bad:
                finish(workdir, config)
            ended(k, UsageError("not finite\nat all") if bad else None)

    monkeypatch.setattr(local, "run_all", run_all)
    monkeypatch.setattr(cluster, "make_executor", lambda *_, jobs: jobs)
    monkeypatch.setattr(cluster, "run_all", lambda jobs, tasks, ended: run_all(tasks, [None] * jobs, ended))
    monkeypatch.setattr(stacked_runs, "run_stack", run_stack)
    return taken, fails


@EACH_ENGINE
def test_failures_are_listed_and_retried_alone(engine, taken, tmp_path, capsys):
    names, fails = taken
    assert program.main(arguments(tmp_path, *engine)) == 1
    assert sorted(names) == sorted(f"learning_rate={rate},seed={seed}" for rate in ("0.1", "0.2") for seed in (0, 1))
    said = capsys.readouterr().err
    assert "learning_rate=0.2,seed=1: not finite" in said and "learning_rate=0.1,seed=1:" not in said
    assert "2 of 4 runs failed; the same command tries them again, and them alone." in said
    assert "Sweep: 4 of 4 runs" in said
    names.clear()
    fails.clear()
    assert program.main(arguments(tmp_path, *engine)) == 0
    assert names == ["learning_rate=0.2,seed=0", "learning_rate=0.2,seed=1"]
    assert "2 of 4 runs are done already." in capsys.readouterr().err
    with open(tmp_path / results.RESULTS, newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["optimizer.learning_rate"] for row in found] == ["0.1", "0.1", "0.2", "0.2"]
    names.clear()
    assert program.main(arguments(tmp_path)) == 0 and names == []


def test_a_larger_grid_keeps_what_is_done(taken, tmp_path):
    names, fails = taken
    fails.clear()
    program.main(arguments(tmp_path))
    names.clear()
    program.main(arguments(tmp_path, grid=GRID.replace("0,1", "0,1,2")))
    assert names == ["learning_rate=0.1,seed=2", "learning_rate=0.2,seed=2"]


def test_groups_are_cut_to_the_most_runs_of_a_program(taken, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(stacked_runs, "run_stack", lambda configs, *_, **__: sizes.append(len(configs)))
    program.main(arguments(tmp_path, "--engine=vmap", "--most=3", grid="--grid=seed=0,1,2,3,4 batch_size=32,64"))
    assert sizes == [3, 2, 3, 2]


def test_a_program_that_is_refused_fails_all_its_runs(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise UsageError("one\ntwo")

    monkeypatch.setattr(stacked_runs, "run_stack", refuse)
    assert program.main(arguments(tmp_path, "--engine=vmap")) == 1
    assert capsys.readouterr().err.count(": one; two\n") == 4


def test_too_little_memory_says_what_to_do(tmp_path, monkeypatch, capsys):
    def exhaust(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore")

    monkeypatch.setattr(stacked_runs, "run_stack", exhaust)
    assert program.main(arguments(tmp_path, "--engine=vmap")) == 1
    assert "Out of memory; the program had 4 runs, and --most=2 takes fewer" in capsys.readouterr().err
    assert program.main(arguments(tmp_path, "--engine=vmap", "--most=1")) == 1
    said = capsys.readouterr().err
    assert "Out of memory\n" in said and "--most" not in said


def test_a_run_that_a_signal_ends_is_named(tmp_path, monkeypatch, capsys):
    def kill(tasks, places, ended):
        tasks[0].output.parent.mkdir(parents=True)
        tasks[0].output.write_text("epoch 1\n")
        ended(tasks[0], -9)

    monkeypatch.setattr(local, "run_all", kill)
    assert program.main(arguments(tmp_path)) == 1
    assert "seed=0: ended by SIGKILL; its last line is: epoch 1 (" in capsys.readouterr().err


def test_an_object_store_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "preset.py").write_text("from configs.smoke import get_config")
    assert program.main(["--config=preset.py", "--workdir=gs://bucket/x", "--grid=seed=0,1"]) == 2
    assert "object stores are not supported yet" in capsys.readouterr().err
    assert not (tmp_path / "gs:").exists()


def test_the_list_and_one_cell(tmp_path, monkeypatch, capsys):
    assert program.main(arguments(tmp_path, "--list")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"2\t{tmp_path}/learning_rate=0.2,seed=0" and len(lines) == 4
    given = []
    monkeypatch.setattr(processes, "start", lambda: None)
    monkeypatch.setattr(command_line, "train", lambda found: given.append(found) or 7)
    assert program.main(arguments(tmp_path, "--cell=2", "--steps=3", "--config.epochs=5")) == 7
    options = command_line.parse(given[0])
    assert options.workdir == f"{tmp_path}/learning_rate=0.2,seed=0" and options.steps == 3
    assert (options.config.optimizer.learning_rate, options.config.seed, options.config.epochs) == (0.2, 0, 5)


def test_only_a_cell_joins_the_processes_of_a_job(taken, tmp_path, monkeypatch):
    """A sweep's own runs have a process each, whatever started the sweep."""
    calls = []
    monkeypatch.setattr(processes, "start", lambda: calls.append("start"))
    monkeypatch.setattr(command_line, "train", lambda _: calls.append("train") or 0)
    assert program.main(arguments(tmp_path, "--cell=2")) == 0 and calls == ["start", "train"]
    calls.clear()
    commands = []
    monkeypatch.setattr(local, "run_all", lambda tasks, *_: commands.extend(task.command for task in tasks))
    program.main(arguments(tmp_path))
    program.main(arguments(tmp_path, "--cell=2", "--list"))
    assert calls == [] and len(commands) == 4 and all("--num_processes=1" in command for command in commands)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--workers=0"], "--workers=0: expected at least 1"),
        (["--engine=vmap", "--workers=2"], "expected 1 with --engine=vmap"),
        (["--cell=4"], "--cell=4: expected from 0 to 3"),
        (["--steps=0"], "--steps=0: expected at least 1"),
        (["--grid=seed=1"], "--grid: expected it once, got it 2 times"),
        (["--workers=two"], "argument --workers: invalid int value: 'two'"),
        (["--engine=threads"], "invalid choice"),
        (["--engine=slurm"], "--slurm: expected timeout_min"),
        (["--slurm=timeout_min=5"], "--slurm: expected it with --engine=slurm alone, got --engine=processes"),
        (["--tempo=3"], "'--tempo=3' is not an option"),
        (["--config.lr=3", "--config.epochs=no"], "config.lr: expected the name of a field"),
    ],
)
def test_a_wrong_command_is_a_line_for_each_fault(more, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "start", lambda: None)
    assert program.main(arguments(tmp_path / "new", *more)) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert any(expected in line for line in errors) and not (tmp_path / "new").exists()
    if "--config.lr=3" in more:
        assert len(errors) == 2


def test_an_interruption_is_its_status(taken, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise Interrupted("SIGTERM: all runs have stopped", 143)

    monkeypatch.setattr(local, "run_all", stop)
    assert program.main(arguments(tmp_path)) == 143
    assert "SIGTERM: all runs have stopped" in capsys.readouterr().err


@EACH_ENGINE
def test_data_that_are_missing_are_one_line(engine, taken, tmp_path, capsys):
    command = arguments(tmp_path / "new", *engine, f"--config.data.source=folder:{tmp_path / 'none'}")
    assert program.main(command) == 2 and not taken[0] and not (tmp_path / "new").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: config.data.source='folder:{tmp_path / 'none'}'")


def test_two_sweeps_of_one_workdir_are_refused(taken, tmp_path, capsys):
    with storage.hold_lock(tmp_path):
        assert program.main(arguments(tmp_path)) == 2 and not taken[0]
    assert f"--workdir={tmp_path}: expected a path that no other process writes to" in capsys.readouterr().err


def test_runs_of_other_data_are_refused_before_any_run(taken, tmp_path, capsys):
    names, fails = taken
    fails.clear()
    program.main(arguments(tmp_path))
    (tmp_path / names[0] / "data.json").write_text('{"train": {"count": 5}}')
    assert program.main(arguments(tmp_path, grid=GRID.replace("0,1", "0,1,2"))) == 2 and len(names) == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {tmp_path / names[0]}: train images: expected the 5 images this run began with, ")


def test_runs_that_began_with_other_weights_are_refused(taken, tmp_path, capsys):
    names, fails = taken
    fails.clear()
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1)}, path)
    command = arguments(tmp_path / "sweep", f"--config.model.weights={path}")
    assert program.main(command) == 0 and len(names) == 4
    for name in names:  # as a run records it
        config = tmp_path / "sweep" / name / "config.json"
        found = json.loads(config.read_text())
        found["model"]["weights_sha256"] = weights.digest(path)
        config.write_text(json.dumps(found))
        (tmp_path / "sweep" / name / "summary.json").touch()
    assert program.main(command) == 0 and len(names) == 4
    safetensors.numpy.save_file({"x": np.ones(1)}, path)
    capsys.readouterr()
    assert program.main(command) == 2 and len(names) == 4
    assert capsys.readouterr().err.count("got one that differs in model.weights_sha256 (there ") == 4


def test_a_full_disk_is_one_line(taken, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / results.RESULTS))

    monkeypatch.setattr(results, "write_results", refuse)
    assert program.main(arguments(tmp_path)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.endswith("No space left on device; make room. The same command resumes the sweep.")


@pytest.mark.slow
def test_both_engines_take_real_runs(tmp_path, capsys):
    fields = as_options({**MLP, **QUICK, "optimizer.warmup_epochs": 0.0})
    command = arguments(tmp_path, *fields, "--steps=2", grid="--grid=optimizer.learning_rate=0.1,1e38")
    assert program.main([*command, "--workers=2"]) == 1
    said = capsys.readouterr().err
    assert "expected finite numbers, got loss" in said and "1 of 2 runs failed" in said
    command[2] = "--grid=optimizer.learning_rate=0.1,0.2,0.3"
    assert program.main([*command, "--engine=vmap"]) == 0
    said = capsys.readouterr().err
    assert "1 of 3 runs are done already." in said and "what is no run of this grid: learning_rate=1e+38" in said
    with open(tmp_path / results.RESULTS, newline="") as file:
        found = list(csv.DictReader(file))
    assert len({row["evaluation.trained encoder.knn"] for row in found} - {""}) >= 1 and len(found) == 3
    assert len({row["final.loss"] for row in found}) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "model"), [("vmap", "mlp"), ("processes", "resnet10")])
def test_the_runs_of_a_sweep_are_runs_for_every_other_program(engine, model, tmp_path, capsys):
    options = ["--config=configs/digits.py", f"--workdir={tmp_path}", f"--engine={engine}", "--grid=seed=0,1"]
    small = QUICK | {"epochs": 2, "model.name": model} | ({"model.kwargs.width": 8} if model != "mlp" else {})
    assert program.main([*options, *as_options(small)]) == 0
    encoders = [contrastive_jax.load(tmp_path / f"seed={seed}") for seed in (0, 1)]
    assert [found.step for found in encoders] == [10, 10] and encoders[0].digest != encoders[1].digest
    run, out = f"{tmp_path}/seed=1", tmp_path / "out"
    embed.main([f"--workdir={run}", "--source=digits", f"--out={out}.npz"])
    with np.load(f"{out}.npz") as arrays:
        digits = load_digits().images * (255 / 16)
        expected = encoders[1].features(digits[:5, ..., None].round().astype(np.uint8))
        np.testing.assert_allclose(arrays["features"][:5], expected, atol=1e-5)
        assert len(arrays["labels"]) == 1797
    summary = json.loads((tmp_path / "seed=1" / "summary.json").read_text())
    evaluate.main([f"--workdir={run}", "--source=digits"])
    found = json.loads((tmp_path / "seed=1" / "evaluation-digits.json").read_text())
    assert found["evaluation"]["trained encoder"]["knn"] == summary["evaluation"]["trained encoder"]["knn"]
    show.main([run])
    assert f"\nThe picture is {run}/show/similarity.png." in capsys.readouterr().out
    if model == "mlp":
        with pytest.raises(UsageError, match=r"expected a ResNet of this package, .* got an instance of MLP"):
            export.main([f"--workdir={run}", f"--out={out}.safetensors"])
    else:
        export.main([f"--workdir={run}", f"--out={out}.safetensors"])
        assert "conv1.weight" in safetensors.numpy.load_file(f"{out}.safetensors")
