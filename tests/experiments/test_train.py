"""The command line: what a user types wrong is answered in one line, with exit status 2 and nothing written."""

import itertools
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from contrastive_jax.jobs.machine import processes
from experiments import train
from tests.command_line import forget_flags
from tests.jobs.support import config

PRESET = "--config=configs/smoke.py"


def call(capsys, monkeypatch, *arguments):
    forget_flags()
    monkeypatch.setattr(processes, "start", lambda *_: None)  # too late here: JAX is in use
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])  # where config_flags looks for overrides
    status = train.main(sys.argv)
    return status, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/nowhere.py", "--workdir={}"],
            "--config=configs/nowhere.py: there is no such preset; here are",
        ),
        ([PRESET], "--workdir is missing"),
        (
            [PRESET, "--workdir={}", "--config.loss.temperature=1"],
            "config.loss.temperature: there is no such field; near",
        ),
        ([PRESET, "--workdir={}", "--config.epochs=ten"], "config.epochs=ten: a whole number >= 1 is wanted"),
        ([PRESET, "--workdir={}", "--config.views.flip=often"], "config.views.flip=often: a value of type float"),
        ([PRESET, "--workdir={}", "--speed=9"], "Unknown command line flag 'speed'"),
        ([PRESET, "--workdir={}", "now"], "'now' is not an option"),
        ([PRESET, "--workdir={}", "--steps=0"], "--steps=0: at least 1 is wanted"),
        ([PRESET, "--workdir={}", "--config.loss.name=triplet"], "config.loss.name='triplet': one of 'info_nce'"),
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


def test_a_runs_own_configuration_is_a_preset(tmp_path, monkeypatch):
    given = config(**{"loss.name": "dcl", "views.crop_scale": (0.3, 0.9)})
    (tmp_path / "config.json").write_text(given.to_json())
    forget_flags()
    arguments = [f"--config={tmp_path}/config.json", f"--workdir={tmp_path}/again", "--config.seed=5"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert train.parse(sys.argv) is None
    given.seed = 5
    assert train.FLAGS.config == given


def test_a_file_that_is_no_configuration_is_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.json").write_text('{"sead": 1}')
    status, error = call(capsys, monkeypatch, f"--config={tmp_path}/config.json", f"--workdir={tmp_path}/run")
    assert status == 2
    assert error == f"error: --config={tmp_path}/config.json: config.sead: there is no such field; near it: seed."


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
