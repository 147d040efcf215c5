"""The README's commands and examples run as they stand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from contrastive_jax import losses
from contrastive_jax.jobs import job as job_lib
from tests.command_line import parse
from tests.jobs.support import save_start, small

README = Path("README.md").read_text()
COMMANDS = re.findall(r"python -m experiments\.train [^\n`]*", README)
# Without their workdirs, and the loop over seeds without its variable, each once.
JOBS = list(dict.fromkeys(re.sub(r" --workdir=\S+| --config.seed=\$seed", "", command) for command in COMMANDS))


def test_the_first_job(tmp_path):
    arguments = shlex.split(JOBS[0])[1:]
    # As it stands, but short of steps and of the linear probe's thousand epochs.
    shorter = ["--steps=2", "--config.evaluation.probe_epochs=5"]
    command = [sys.executable, *arguments, f"--workdir={tmp_path}", *shorter]
    faster = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # as in conftest.py
    done = subprocess.run(command, env=faster, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| trained encoder |" in done.stdout
    assert (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("command", JOBS[1:], ids=range(1, len(JOBS)))
def test_other_jobs_are_accepted(command, tmp_path):
    with jax.numpy_dtype_promotion("standard"):  # which Optax needs
        job_lib.prepare(parse(command, tmp_path).config, tmp_path)


def test_there_are_jobs():
    assert "configs/digits.py" in JOBS[0] and len(JOBS) > 1


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_python_examples(code, tmp_path, monkeypatch):
    if "contrastive_jax.load(" in code:
        monkeypatch.chdir(tmp_path)
        with jax.numpy_dtype_promotion("standard"):
            save_start(small(), tmp_path / "runs" / "digits")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, "README.md", "exec"), {})


def test_an_own_encoder_takes_fifteen_lines():
    (code,) = [code for code in EXAMPLES if "training.create" in code]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_every_preset_is_named():
    for preset in Path("configs").glob("[a-z]*.py"):
        assert f"`{preset.stem}`" in README


def test_every_loss_that_is_named_exists():
    named = re.findall(r"`losses\.(\w+)`", README)
    assert len(named) > 10 and all(callable(getattr(losses, name)) for name in named)
