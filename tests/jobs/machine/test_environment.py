"""What a summary says of where a run ran."""

import subprocess

from contrastive_jax.jobs.machine import environment


def git(folder, *arguments):
    author = ["-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *author, *arguments], check=True, capture_output=True)


def test_the_commit_and_whether_anything_differs_from_it(tmp_path):
    assert environment.source(tmp_path) is None
    git(tmp_path, "init")
    assert environment.source(tmp_path) is None  # no commit yet
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = environment.source(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "code.py").write_text("x = 2\n")
    assert environment.source(tmp_path) == clean | {"dirty": True}
    git(tmp_path, "checkout", "code.py")
    (tmp_path / "preset.py").write_text("")  # new, and perhaps what was run
    assert environment.source(tmp_path) == clean | {"dirty": True}


def test_a_package_inside_another_checkout_has_no_commit(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "site-packages").mkdir()
    assert environment.source(tmp_path / "site-packages") is None


def test_flags_and_versions(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    found = environment.describe()
    assert found["flags"]["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=true"
    assert "SECRET_TOKEN" not in found["flags"]
    assert found["versions"].keys() >= {"contrastive_jax", "jax", "jaxlib", "flax", "orbax-checkpoint"}
    assert (found["platform"], found["devices"], found["processes"]) == ("cpu", 8, 1)
