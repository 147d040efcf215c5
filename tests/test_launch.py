"""The launchers: what they would run is a job that exists."""

import os
import subprocess
from pathlib import Path

import yaml

from contrastive_jax.jobs import command_line

ROOT = Path(__file__).parent.parent
ARGUMENTS = ["--config=configs/imagenet100.py", "--workdir=/shared/a b"]


def assert_is_a_job(arguments):
    options = command_line.parse(arguments)
    assert options.config.model.name == "resnet50" and options.workdir


def run_with_stand_in(script, command, tmp_path, **environment):
    """What the script asks of a command that is not here, an argument a line."""
    stand_in = tmp_path / command
    stand_in.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **environment}
    script = ["bash", str(ROOT / "launch" / script), *ARGUMENTS]
    return subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout


def test_slurm(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    asked = run_with_stand_in("slurm.sh", "srun", tmp_path).splitlines()
    assert asked[-2:] == ARGUMENTS and asked[-5:-2] == ["-u", "-m", "experiments.train"]
    assert_is_a_job(ARGUMENTS)


def test_tpu_vm(tmp_path):
    asked = run_with_stand_in("tpu_vm.sh", "gcloud", tmp_path, NAME="slice", ZONE="zone").splitlines()
    assert asked[:6] == ["compute", "tpus", "tpu-vm", "ssh", "slice", "--zone=zone"] and "--worker=all" in asked
    # The hosts' shell reads the arguments again: the space in one of them must survive.
    assert asked[-1].endswith("experiments.train --config=configs/imagenet100.py --workdir=/shared/a\\ b ")


def test_tpu_vm_without_a_name():
    done = subprocess.run([ROOT / "launch" / "tpu_vm.sh"], env={"PATH": os.environ["PATH"]}, capture_output=True)
    assert done.returncode != 0 and b"NAME: expected the name of the slice" in done.stderr


def test_gke_jobset():
    jobset = yaml.safe_load((ROOT / "launch" / "gke_jobset.yaml").read_text())
    assert jobset["kind"] == "JobSet"
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-u", "-m", "experiments.train"]
    assert_is_a_job(container["args"])
    rows, columns = map(int, job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert rows * columns == job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"]
