"""The encoder of a run in hand: what its evaluation computes, from the workdir alone."""

import functools
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import contrastive_jax
from contrastive_jax import evaluation, models
from contrastive_jax.data import batches, sources, views
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import encoder as encoder_lib
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import loading, parts, passes
from contrastive_jax.jobs.machine import saved_encoders, storage
from tests.jobs import own_parts
from tests.jobs.support import config, flags, save_start, small, train

MOCO = {"loss.name": "moco", "estimator.encoder_momentum": 0.9, "estimator.queue_size": 128, "checkpoint.every": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps on eight devices, with a momentum encoder: its job, its state, its workdir."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    given = config(**MOCO)
    with jax.numpy_dtype_promotion("standard"):
        job = job_lib.prepare(given, workdir)
        return job, jax.tree.map(np.asarray, train(given, workdir, 4, job=job)), workdir


@pytest.fixture
def workdir(trained, tmp_path):
    return shutil.copytree(trained[2], tmp_path / "run")


@pytest.fixture(scope="module")
def encoder(trained):
    with jax.numpy_dtype_promotion("standard"):
        return contrastive_jax.load(trained[2], batch_size=16)


def images_of(count, shape=(8, 8, 1)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def list_files(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_features_are_those_of_the_runs_own_evaluation(trained):
    job, state, workdir = trained
    loaded = contrastive_jax.load(str(workdir))
    assert loaded.batch_size == job.config.evaluation.batch_size
    features = passes.bind(passes.strip(state), passes.make(job).features)
    expected, _ = evaluation.extract(features, batches.sequential(job.test, loaded.batch_size))
    np.testing.assert_array_equal(loaded.features(job.test.images), expected)
    assert loaded.num_features == expected.shape[1]


def test_projections_are_those_of_the_model(trained, encoder):
    job, state, _ = trained
    images = images_of(5)
    plain = encoder.preprocess(images)
    expected, _ = models.apply(job.program.graphdef, state.params.model, state.model_state, plain, train=False)
    np.testing.assert_allclose(encoder.project(images), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.module(plain), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.module.features(plain), encoder.features(images), rtol=0, atol=1e-5)
    for found, alone in zip(encoder.embed(images), (encoder.features(images), encoder.project(images)), strict=True):
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)


def test_both_cost_as_much_as_the_projections(encoder):
    _, params, state = encoder.functional

    def count(fn):
        found = fn.lower(params, state, images_of(4)).compile().cost_analysis()
        return (found[0] if isinstance(found, list) else found)["flops"]

    assert count(encoder._both) == count(encoder._project) > 0


def test_where_it_comes_from(trained, encoder):
    _, state, workdir = trained
    assert (encoder.step, encoder.which, encoder.image_shape) == (4, "trained encoder", (8, 8, 1))
    named = map(saved_encoders.name_leaves, (state.params.model, state.model_state))
    assert encoder.digest == saved_encoders.digest(*named)
    assert repr(encoder).endswith("run, trained encoder, step 4; momentum=True loads its momentum encoder)")
    earlier = contrastive_jax.load(workdir, step=2)
    assert earlier.step == 2 and earlier.digest != encoder.digest


def test_the_momentum_encoder(trained, encoder):
    _, state, workdir = trained
    momentum = contrastive_jax.load(workdir, momentum=True, batch_size=16)
    assert momentum.which == "momentum encoder" and momentum.digest != encoder.digest
    assert repr(momentum).endswith("run, momentum encoder, step 4)")
    leaves = jax.tree.leaves(momentum.functional[1:])
    expected = jax.tree.leaves((state.estimator["encoder_params"], state.estimator["encoder_state"]))
    assert all(np.array_equal(x, y) for x, y in zip(leaves, expected, strict=True))


@pytest.mark.parametrize("count", [0, 1, 16, 17])
def test_any_number_of_images(count, encoder):
    images = images_of(40)
    whole = encoder.features(images)
    found = encoder.features(images[:count])
    assert found.shape == (count, encoder.num_features) and found.dtype == np.float32
    np.testing.assert_allclose(found, whole[:count], rtol=0, atol=1e-6)
    assert encoder.project(images[:count]).shape == (count, 16) and encoder.preprocess(images[:count]).shape[0] == count


def test_one_shape_compiles_once(trained, monkeypatch):
    traced = []

    def count(*args):
        traced.append(args[-1].shape)
        return models.features(args[0], *args[2:4], args[-1].astype(jnp.float32))

    monkeypatch.setattr(encoder_lib, "compute_features", count)
    encoder = contrastive_jax.load(trained[2], batch_size=8)
    for number in (3, 1, 8, 20):
        encoder.features(images_of(number))
    assert traced == [(8, 8, 8, 1)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_floats_are_pixels_in_0_1(dtype, encoder):
    images = images_of(5) // 255 * 255  # exact in every dtype
    np.testing.assert_allclose(
        encoder.features((images / 255).astype(dtype)), encoder.features(images), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(11, 17, 1), (5, 4, 1), (9, 9, 1)])
def test_images_of_another_size_are_stored_and_resized_as_those_of_a_data_set(shape, encoder, tmp_path):
    images = images_of(3, shape)
    np.savez(tmp_path / "images.npz", image=images)
    source = sources.load_whole(f"npz:{tmp_path / 'images.npz'}", image_size=8)
    plain = views.plain_view(source.take(np.arange(3)), config=views.ViewConfig(size=8))
    np.testing.assert_allclose(encoder.preprocess(images), plain, rtol=0, atol=1e-6)
    np.testing.assert_allclose(encoder.features(images), encoder.module.features(plain), rtol=0, atol=1e-5)
    assert encoder.preprocess(images / 255).shape == (3, 8, 8, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (images_of(1)[0], r"got uint8 \[8, 8, 1\]. Give one image as image\[None\]"),
        (images_of(3)[..., 0], r"got uint8 \[3, 8, 8\]. Add the channels: images\[..., None\]"),
        (images_of(3, (8, 8, 3)), r"got uint8 \[3, 8, 8, 3\]. The encoder was trained on other channels; .*mean"),
        (images_of(3).astype(int), r"got int64 \[3, 8, 8, 1\]. Give uint8, or floats"),
        (
            images_of(3) * 1.0,
            r"expected float images in \[0, 1\], not normalised, got some in \[0, 2\d\d\]. Divide by 255",
        ),
        (images_of(3) / 127.5 - 1, r"got some in \[-1, 0.9\d+\]"),
        (np.full((1, 8, 8, 1), np.nan), r"got some in \[nan, nan\]"),
        ([images_of(1)[0], images_of(1, (4, 4, 1))[0]], "of one size, got several sizes"),
        (np.zeros((0,)), r"expected images \[n, h, w, 1\], got float64 \[0\]"),
        (np.zeros((2, 0, 8, 1)), r"got float64 \[2, 0, 8, 1\]"),
        ("picture.png", "got <U11"),
    ],
)
def test_what_is_no_image_is_said_in_a_line(images, message, encoder):
    for call in (encoder.features, encoder.project, encoder.preprocess):
        with pytest.raises(UsageError, match=message):
            call(images)


def test_loading_writes_nothing_and_needs_no_lock(workdir):
    with storage.hold_lock(workdir):  # as a run that goes on
        before = list_files(workdir)
        assert contrastive_jax.load(workdir).step == 4
        assert list_files(workdir) == before


def test_a_checkpoint_that_a_run_removes_meanwhile(workdir, monkeypatch):
    read, removed = saved_encoders._read, []

    def remove_first(checkpoints, step, which):
        if not removed:
            removed.append(shutil.rmtree(checkpoints / str(step)))
        return read(checkpoints, step, which)

    monkeypatch.setattr(saved_encoders, "_read", remove_first)
    assert contrastive_jax.load(workdir).step == 2


@pytest.mark.slow
def test_a_run_of_eight_devices_loads_on_one(trained):
    code = (
        "import sys, contrastive_jax, jax, numpy as np; assert len(jax.devices()) == 1\n"
        "encoder = contrastive_jax.load(sys.argv[1], batch_size=16)\n"
        "print(encoder.digest, float(np.abs(encoder.features(np.full((3, 8, 8, 1), 7, np.uint8))).sum()))"
    )
    environment = os.environ | {"XLA_FLAGS": flags(1)}
    command = [sys.executable, "-c", code, str(trained[2])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    digest, total = done.stdout.split()
    here = contrastive_jax.load(trained[2], batch_size=16)
    assert digest == here.digest and "WARNING" not in done.stderr
    np.testing.assert_allclose(float(total), np.abs(here.features(np.full((3, 8, 8, 1), 7, np.uint8))).sum(), rtol=1e-5)


def test_the_loss_the_optimizer_and_the_data_are_not_needed(workdir, encoder):
    given = json.loads((workdir / "config.json").read_text())
    given["loss"] |= {"name": "gone.lab:loss", "kwargs": {"margin": 1}}
    given["optimizer"] |= {"name": "gone.lab:optimizer", "kwargs": {"decay": 1}}
    given["data"]["source"], given["log"]["metrics"] = "folder:/none", ["gone.lab:metric"]
    (workdir / "config.json").write_text(json.dumps(given))
    assert contrastive_jax.load(workdir).digest == encoder.digest


@pytest.mark.parametrize("name", ["tests.jobs.own_parts:Encoder", "tests.jobs.own_parts:linen_encoder"])
def test_an_encoder_of_ones_own_by_its_name(name, tmp_path):
    job = save_start(config(**{"model.name": name, "loss.name": "tests.jobs.own_parts:triplets"}), tmp_path)
    loaded = contrastive_jax.load(tmp_path, batch_size=4)
    initial = job.initial
    plain = loaded.preprocess(images_of(4))
    features = jax.jit(functools.partial(models.features, job.program.graphdef))
    expected = features(initial.params.model, initial.model_state, plain)
    np.testing.assert_allclose(loaded.features(images_of(4)), expected, rtol=0, atol=1e-5)


def test_an_encoder_given_from_python_is_given_again(tmp_path):
    def local(image_shape, *, rngs):
        return own_parts.Encoder(image_shape, rngs=rngs, width=6)

    local.__module__, local.__qualname__ = "gone", "local"
    module = own_parts.Encoder((8, 8, 1), rngs=nnx.Rngs(3), width=6)
    job = save_start(small(), tmp_path, parts.Own(encoder=local))
    with pytest.raises(UsageError, match=r"got no module 'gone'.*Give the encoder itself: load\(..., encoder=...\)"):
        contrastive_jax.load(tmp_path)
    for given in (local, module):
        loaded = contrastive_jax.load(tmp_path, encoder=given, batch_size=4)
        leaves = zip(jax.tree.leaves(loaded.functional[1]), jax.tree.leaves(job.initial.params.model), strict=True)
        assert all(np.array_equal(x, y) for x, y in leaves)
    with pytest.raises(UsageError, match="got one where it is"):
        contrastive_jax.load(tmp_path, encoder=own_parts.Encoder)


def test_the_untrained_encoder_is_that_of_the_run(trained, encoder):
    job, _, _ = trained
    untrained = loading.load_untrained(encoder)
    leaves = zip(jax.tree.leaves(untrained.functional[1]), jax.tree.leaves(job.initial.params.model), strict=True)
    assert all(np.array_equal(x, y) for x, y in leaves)
    assert untrained.step == 0 and untrained.digest != encoder.digest
