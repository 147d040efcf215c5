"""The command line: what a user types wrong is answered in one line, with exit status 2 and nothing written."""

import itertools
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from contrastive_jax.jobs import command_line
from contrastive_jax.jobs.machine import processes, storage
from tests.jobs.support import config

PRESET = "--config=configs/smoke.py"


def call(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(processes, "start", lambda *_: None)  # too late here: JAX is in use
    monkeypatch.setattr(storage, "silence_repeated_errors", lambda: None)
    status = command_line.main(arguments)
    return status, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/nowhere.py", "--workdir={}"],
            "--config=configs/nowhere.py: expected a preset; here are configs/cifar10.py",
        ),
        ([PRESET], "--workdir is missing"),
        (
            [PRESET, "--workdir={}", "--config.loss.temperature=1"],
            "config.loss.temperature: expected the name of a field; similar",
        ),
        ([PRESET, "--workdir={}", "--config.epochs=ten"], "config.epochs=ten: expected a whole number >= 1"),
        (
            [PRESET, "--workdir={}", "--config.views.flip=often"],
            "config.views.flip=often: expected a value of type float",
        ),
        ([PRESET, "--workdir={}", "--speed=9"], "'--speed=9' is not an option"),
        ([PRESET, "--workdir={}", "now"], "'now' is not an option"),
        (
            [PRESET, "--workdir={}", "--profile=5:2"],
            "--profile=5:2: expected START:STOP, whole numbers with START < STOP",
        ),
        ([PRESET, "--workdir={}", "--steps=0"], "--steps=0: expected at least 1"),
        (
            [PRESET, "--workdir={}", "--config.loss.name=triplet"],
            "config.loss.name='triplet': expected one of",
        ),
        ([PRESET, "--workdir={}", "--steps=many"], "argument --steps: invalid int value: 'many'"),
        ([PRESET, "--workdir={}", "--config.epochs"], "--config.epochs: expected a value, --config.epochs=VALUE"),
        (["--config=README.md", "--workdir={}"], "--config=README.md: expected a Python file"),
        (["--config=experiments/compare.py", "--workdir={}"], "--config=experiments/compare.py: expected a file that"),
        ([PRESET, "--workdir=gs://bucket/run"], "object stores are not supported yet. Mount the bucket"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys, monkeypatch):
    status, error = call(capsys, monkeypatch, *(a.format(tmp_path / "run") for a in arguments))
    assert status == 2
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_all_mistakes_are_said_at_once(tmp_path, capsys, monkeypatch):
    mistakes = ["loss.temperature=1", "epochs=ten", "batch_size=-3", "log.distribution=perhaps", "data.mean=(0.5"]
    options = [PRESET, f"--workdir={tmp_path}/run", *(f"--config.{mistake}" for mistake in mistakes)]
    status, error = call(capsys, monkeypatch, *options, "--config.seed=3")
    assert status == 2
    said = [line.removeprefix("error: ") for line in error.splitlines()]
    assert sorted(line.partition(":")[0] for line in said) == sorted(
        f"config.{mistake}" if mistake != "loss.temperature=1" else "config.loss.temperature" for mistake in mistakes
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("prefix", ["", "./"])
@pytest.mark.parametrize("space", [False, True], ids=["=", "space"])
def test_a_runs_own_configuration_is_a_preset(prefix, space, tmp_path, monkeypatch):
    given = config(**{"loss.name": "dcl", "loss.kwargs.sigma": 0.5, "views.crop_scale": (0.3, 0.9)})
    (tmp_path / "config.json").write_text(given.to_json())
    monkeypatch.chdir(tmp_path)
    arguments = [f"--config={prefix}config.json", "--workdir=again", "--config.seed=5"]
    options = command_line.parse([y for x in arguments for y in (x.split("=") if space else [x])])
    given.seed = 5
    assert options.config == given and options.workdir == "again"


def test_the_whole_training_set_is_called_full(tmp_path):
    options = command_line.parse([PRESET, f"--workdir={tmp_path}", "--config.contrast_size=full"])
    assert options.config.contrast_size == 0


def test_a_file_that_is_no_configuration_is_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.json").write_text('{"sead": 1}')
    status, error = call(capsys, monkeypatch, f"--config={tmp_path}/config.json", f"--workdir={tmp_path}/run")
    assert status == 2
    assert error.startswith(f"error: --config={tmp_path}/config.json: config.sead: expected the name of a field")


def test_a_preset_that_raises_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text("def get_config():\n    return 1 / 0\n")
    status, error = call(capsys, monkeypatch, f"--config={tmp_path}/mine.py", f"--workdir={tmp_path}/run")
    assert status == 2 and error == f"error: --config={tmp_path}/mine.py: ZeroDivisionError: division by zero"


def test_what_a_preset_sets_of_its_own_loss_is_no_matter_to_another(tmp_path, capsys):
    digits = ["--config=configs/digits.py", f"--workdir={tmp_path}"]
    assert command_line.parse(digits).config.loss.kwargs.temperature == 0.5
    other = command_line.parse([*digits, "--config.loss.name=dcl", "--config.loss.kwargs.sigma=2"]).config
    assert dict(other.loss.kwargs) == {"temperature": 0.5, "sigma": 2.0}
    assert dict(command_line.parse([*digits, "--config.loss.name=kcl"]).config.loss.kwargs) == {}
    assert "Loss 'kcl' takes no temperature: the preset's 0.5 is left out." in capsys.readouterr().err


def test_a_broken_image_is_named(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    for split, name in itertools.product(("train", "test"), "ab"):
        folder = tmp_path / "images" / split / name
        folder.mkdir(parents=True)
        for k in range(8):
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"{k}.png")
    broken = tmp_path / "images" / "train" / "b" / "3.png"
    broken.write_bytes(broken.read_bytes()[:-100])
    options = [f"--config.data.source=folder:{tmp_path}/images", "--config.batch_size=16", f"--workdir={tmp_path}/run"]
    status, error = call(capsys, monkeypatch, PRESET, *options)
    assert status == 2
    assert str(broken) in error.splitlines()[-1] and "Traceback" not in error


def test_exit_status_and_no_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.train",
        PRESET,
        f"--workdir={tmp_path}/run",
        "--config.batch_size=1600",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "at most the 1437 images" in done.stderr
