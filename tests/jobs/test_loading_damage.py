"""Runs of which there is no encoder to load, or a damaged one: a line that says so."""

import json
import shutil

import jax
import numpy as np
import pytest

import contrastive_jax
from contrastive_jax.errors import DamagedError, UsageError
from contrastive_jax.jobs.machine import saved_encoders
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from tests.jobs.support import save_start, small, train

MOCO = {"loss.name": "moco", "estimator.encoder_momentum": 0.9, "estimator.queue_size": 128, "checkpoint.every": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps with a momentum encoder: its state and its workdir."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(np.asarray, train(small(**MOCO), workdir, 4)), workdir


@pytest.fixture
def workdir(trained, tmp_path):
    return shutil.copytree(trained[1], tmp_path / "run")


def write(name, text):
    return lambda workdir: (workdir / name).write_text(text)


def edit_config(**fields):
    def edit(workdir):
        given = json.loads((workdir / "config.json").read_text())
        given["model"] |= fields
        (workdir / "config.json").write_text(json.dumps(given))

    return edit


def drop(*names):
    """Remove entries of the metadata of all checkpoints."""

    def edit(workdir):
        for path in workdir.glob("checkpoints/*/_CHECKPOINT_METADATA"):
            given = json.loads(path.read_text())
            for name in names:
                given["custom_metadata"].pop(name)
            path.write_text(json.dumps(given))

    return edit


# An earlier version kept a digest of the whole state alone.
drop_encoders = drop("sha256 of the trained encoder", "sha256 of the momentum encoder")
drop_own = drop("sha256 of the trained encoder")
drop_all = drop("sha256", "sha256 of the trained encoder", "sha256 of the momentum encoder")
OTHER_VERSION = r"If another version of contrastive_jax wrote the run, .* train it again with this one\.$"


def cut_arrays(workdir):
    """Cut the files of the last checkpoint's arrays, all of them: the encoder may be whole where another is cut."""
    for path in (workdir / "checkpoints" / "4").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 10])


def empty_all(workdir):
    for path in (workdir / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "options", "kind", "message"),
    [
        (shutil.rmtree, {}, UsageError, "expected the workdir of a run, got no such folder"),
        (lambda w: (w / "config.json").unlink(), {}, UsageError, "got a folder without config.json"),
        (lambda w: (w / "data.json").unlink(), {}, UsageError, "got a folder without data.json"),
        (write("config.json", "{"), {}, UsageError, "config.json: expected the configuration of a run as JSON"),
        (
            write("config.json", '{"colour": 1}'),
            {},
            UsageError,
            "config.json: config.colour: expected the name of a field",
        ),
        (write("data.json", "{}"), {}, UsageError, "data.json: expected the JSON that a run wrote"),
        (
            lambda w: shutil.rmtree(w / "checkpoints"),
            {},
            UsageError,
            "expected a run with a checkpoint, got one without",
        ),
        (lambda w: None, {"step": 3}, UsageError, "expected a step of 2, 4, its checkpoints, got 3"),
        (lambda w: None, {"batch_size": 0}, UsageError, "batch_size=0: expected at least 1"),
        (cut_arrays, {}, DamagedError, r"checkpoints/4: .*Load an earlier one: step=2\."),
        (empty_all, {}, DamagedError, r"checkpoints/4: .*step=2\."),
        (drop_own, {}, DamagedError, "expected a sha256 of the trained encoder in its metadata, found none"),
        (drop_all, {}, DamagedError, "expected a sha256 of the trained encoder in its metadata, found none"),
        (
            drop_encoders,
            {},
            UsageError,
            f"/4: expected a checkpoint with a sha256 of the trained encoder, got one without. {OTHER_VERSION}",
        ),
        (
            write("config.json", '{"colour": 1, "model": {"stem": "small", "depth": 3}}'),
            {},
            UsageError,
            f"config.colour: expected the name of a field.* 2 more of its fields are at fault. {OTHER_VERSION}",
        ),
        (
            edit_config(kwargs={"hidden": [8]}),
            {},
            UsageError,
            r"whose encoder/.* is float32\[.*got one where it is float32.*load\(..., encoder=..., head=...\)",
        ),
        (edit_config(name="gone.lab:Net", kwargs={}), {}, UsageError, r"no module 'gone'.*load\(..., encoder=...\)"),
        (edit_config(head="gone.lab:head", head_kwargs={}), {}, UsageError, r"no module 'gone'.*load\(..., head=...\)"),
        (
            edit_config(name="tests.jobs.own_parts:flat_encoder", kwargs={}),
            {},
            UsageError,
            "cannot be made again: expected an encoder that gives float features",
        ),
    ],
)
def test_what_cannot_be_loaded_is_one_line(change, options, kind, message, workdir):
    change(workdir)
    with pytest.raises(kind, match=message) as caught:
        contrastive_jax.load(workdir, **options)
    assert caught.type is kind and "\n" not in str(caught.value)
    if change in (cut_arrays, empty_all):
        assert contrastive_jax.load(workdir, step=2).step == 2


def test_a_flipped_bit_is_told_by_the_digest(trained, workdir, monkeypatch):
    state = jax.tree.map(np.copy, trained[0])
    described = saved_encoders.describe(state)
    jax.tree.leaves(state.params.model)[0].reshape(-1).view(np.uint32)[0] ^= 1
    shutil.rmtree(workdir / "checkpoints")
    monkeypatch.setattr(saved_encoders, "describe", lambda _: described)
    with Checkpoints(workdir / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(state)
        checkpoints.wait()
    with pytest.raises(DamagedError, match=r"expected the arrays that were saved, got others.*Restore a copy of it\."):
        contrastive_jax.load(workdir)


def test_a_run_without_a_momentum_encoder(tmp_path):
    save_start(small(), tmp_path)
    assert not contrastive_jax.load(tmp_path).has_momentum
    with pytest.raises(
        UsageError, match=r"expected a momentum encoder, got a run without one.*Leave out momentum=True"
    ):
        contrastive_jax.load(tmp_path, momentum=True)
