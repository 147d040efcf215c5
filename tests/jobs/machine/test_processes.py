"""Several processes are one job: the same parameters, an end with a reason when one dies, and one resume."""

import os
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from contrastive_jax import spmd
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import run
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine import processes
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from tests.jobs.support import MLP, QUICK, as_options, flags, small

STEPS = 10
# As in test_step: at this learning rate a difference of rounding stays one.
OVERRIDES = {
    **MLP,
    **QUICK,
    "optimizer.learning_rate": 1e-4,
    "optimizer.warmup_epochs": 0.0,
    "epochs": 100,
    "batch_size": 256,  # five steps an epoch, at whose end the first process measures the encoder
    "checkpoint.keep": 1000,
}


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(workdir, which, *options, program="experiments.train", **environment):
    """One process, of two devices."""
    overrides = as_options(OVERRIDES)
    command = [sys.executable, "-m", program, "--config=configs/smoke.py", f"--workdir={workdir}"]
    with open(workdir.with_name(f"{which}.log"), "w") as log:
        return subprocess.Popen(
            [*command, *overrides, *options],
            env={**os.environ, "XLA_FLAGS": flags(devices=2), **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def start_both(workdir, *options):
    options = [*options, f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
    return [start(workdir, k, *options, f"--process_id={k}") for k in range(2)]


def start_both_as_slurm_does(workdir, *options, **more):
    """What JAX looks for under `srun`; it takes the port from the number of the job."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    places = [{"SLURM_PROCID": str(k), "SLURM_LOCALID": str(k)} for k in range(2)]
    return [start(workdir, k, *options, **job, **place, **more) for k, place in enumerate(places)]


def wait_until(there, started, seconds=240):
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in started)
        time.sleep(0.05)


def latest(workdir):
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def state_at(workdir, step):
    job = job_lib.prepare(small(**OVERRIDES), workdir)
    with Checkpoints(workdir / "checkpoints", keep=1000) as checkpoints:
        return checkpoints.restore(job.initial, step)


def test_two_processes_are_one_job_end_together_and_resume(tmp_path, monkeypatch):
    together, alone = tmp_path / "together", tmp_path / "alone"
    started = start_both(together)
    wait_until((together / "checkpoints" / str(STEPS)).exists, started)
    started[1].kill()
    assert started[0].wait(timeout=60) != 0
    said = (tmp_path / "0.log").read_text()  # by us or by JAX, whichever misses the other first
    assert "one of them has ended" in said or "another task died" in said

    kept = latest(together)
    # No checkpoint before the one of SIGTERM, so that Orbax knows of no time of the one before it.
    started = start_both_as_slurm_does(together, "--config.checkpoint.every=1000")
    wait_until(lambda: (together / "metrics.jsonl").read_bytes().count(b"\n") > kept + 2, started)
    started[1].terminate()
    assert [process.wait(timeout=60) for process in started] == [143, 143]
    first, second = ((tmp_path / f"{k}.log").read_text() for k in range(2))
    assert f"Resuming {together} after step {kept}" in first and "Resuming" not in second
    kept = latest(together)
    for name, said in enumerate((first, second)):
        assert f"process {name}: SIGTERM: stopped after step {kept}" in said

    started = start_both(together)
    wait_until(lambda: "Resuming" in (tmp_path / "0.log").read_text(), started)
    started[0].terminate()  # while the first step is compiled
    assert [process.wait(timeout=300) for process in started] == [143, 143]
    assert kept < latest(together) < 400  # of 500: not at the end
    kept = latest(together)

    started = start_both(together, f"--steps={kept + 2}")
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    first, second = ((tmp_path / f"{k}.log").read_text() for k in range(2))
    assert f"Resuming {together} after step {kept}" in first and "trained encoder" in first
    assert "Resuming" not in second and "trained encoder" not in second
    assert [row["step"] for row in logs.read_rows(together / "metrics.jsonl")] == list(range(kept + 2))

    monkeypatch.setattr(spmd, "devices", lambda: jax.devices()[:4])
    with Checkpoints(alone / "checkpoints", keep=1000) as checkpoints:
        run.train(job_lib.prepare(small(**OVERRIDES), alone), checkpoints, STEPS)
    got, want = state_at(together, STEPS), state_at(alone, STEPS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6), got.params, want.params)
    ours, theirs = (logs.read_rows(workdir / "metrics.jsonl") for workdir in (together, alone))
    for step in (4, 9):
        measured = {name: x for name, x in theirs[step].items() if name.startswith(logs.MONITORED)}
        assert len(measured) == 5 and {name: ours[step][name] for name in measured} == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize(
    "sizes", [{"SLURM_NTASKS": "1"}, {"OMPI_COMM_WORLD_SIZE": "1"}, {"SLURM_NTASKS": "1", "OMPI_COMM_WORLD_SIZE": "1"}]
)
def test_a_process_alone_joins_nobody(sizes, monkeypatch):
    """Several in one task of SLURM would have one port, and one name."""
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **_: joined.append(given))
    for name, size in sizes.items():
        monkeypatch.setenv(name, size)
    processes.start()
    assert not joined
    processes.start("localhost:1234", 1, 0)  # whoever gives an address has a reason
    assert joined.pop() == ("localhost:1234", 1, 0)
    for name in sizes:
        monkeypatch.setenv(name, "2")
        processes.start()
        assert joined.pop() == (None, None, None)
    processes.start(num_processes=1)
    assert not joined


@pytest.mark.slow
def test_a_cell_of_a_sweep_is_a_job_of_all_its_processes(tmp_path):
    """They join before the grid is checked, for which the encoder's shapes are computed."""
    options = ["--grid=seed=0,1", "--cell=1", "--steps=2", "--config.log.pictures=False"]
    started = start_both_as_slurm_does(tmp_path / "sweep", *options, program="experiments.sweep")
    assert [process.wait(timeout=300) for process in started] == [0, 0], (tmp_path / "0.log").read_text()
    first, second = ((tmp_path / f"{k}.log").read_text() for k in range(2))
    assert "trained encoder" in first and "trained encoder" not in second
    assert (tmp_path / "sweep" / "seed=1" / "summary.json").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1234", 2, None), "--coordinator=host:1234, --num_processes=2, --process_id=None: expected all three"),
        (("host:1234", 2, 2), "--process_id=2: expected an integer from 0 to 1"),
        (("host", 2, 0), "--coordinator=host: expected HOST:PORT"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(UsageError, match=message):
        processes.start(*given)
