"""What a summary says of where a run ran."""

import importlib.metadata
import os
import subprocess
from pathlib import Path

import jax

import contrastive_jax
from contrastive_jax.jobs.machine import environment


def git(folder, *arguments):
    author = ["-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *author, *arguments], check=True, capture_output=True)


def test_the_commit_and_whether_anything_differs_from_it(tmp_path):
    assert environment.describe_checkout(tmp_path) is None
    git(tmp_path, "init")
    assert environment.describe_checkout(tmp_path) is None  # no commit yet
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = environment.describe_checkout(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "code.py").write_text("x = 2\n")
    assert environment.describe_checkout(tmp_path) == clean | {"dirty": True}
    git(tmp_path, "checkout", "code.py")
    git(tmp_path, "config", "core.quotePath", "false")
    (tmp_path / os.fsdecode(b"\xff.py")).write_text("")  # new, and perhaps what was run; a name that is not UTF-8
    assert environment.describe_checkout(tmp_path) == clean | {"dirty": True}


def test_a_package_inside_another_checkout_has_no_commit(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "site-packages").mkdir()
    assert environment.describe_checkout(tmp_path / "site-packages") is None


def test_flags_and_versions(monkeypatch):
    jax.devices()  # XLA reads the flags of the tests first
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    found = environment.describe()
    assert found["flags"]["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=true"
    assert "SECRET_TOKEN" not in found["flags"]
    assert found["versions"].keys() >= {"contrastive_jax", "jax", "jaxlib", "flax", "orbax-checkpoint"}
    assert (found["platform"], found["devices"], found["processes"]) == ("cpu", 8, 1)
    assert found["git"] == environment.describe_checkout(Path(__file__).parents[3])


def test_versions_of_what_is_not_installed(monkeypatch):
    """A checkout on PYTHONPATH has no metadata, and a package may be vendored without them."""

    def find_nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", find_nothing)
    versions = environment.describe()["versions"]
    assert versions.pop("contrastive_jax") == contrastive_jax.__version__
    assert set(versions.values()) == {None}
