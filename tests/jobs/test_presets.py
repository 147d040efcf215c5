"""Every preset takes a step, and so does what else a configuration can name: losses, contrast sets, precisions."""

from pathlib import Path

import numpy as np
import pytest

from configs import cifar10, cifar100, digits, fashion_mnist, folder, imagenet100, smoke
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import run
from contrastive_jax.jobs.fields import FIELDS
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine.checkpoints import Checkpoints
from contrastive_jax.training import objective
from tests.jobs.support import check, config, set_fields, small

PRESETS = {module.__name__: module for module in (cifar10, cifar100, digits, fashion_mnist, folder, imagenet100, smoke)}
TINY = {
    "batch_size": 8,
    "contrast_size": 4,
    "model.name": "resnet10",
    "model.kwargs.width": 4,
    "model.head_kwargs.hidden": 8,
    "evaluation.probe_epochs": 1,
    "evaluation.labels_per_class": 1,
}


def take_steps(job, steps):
    """Train without evaluating; the rows of metrics.jsonl."""
    with Checkpoints(job.workdir / "checkpoints", keep=1) as checkpoints:
        run.train(job, checkpoints, steps)
    return logs.read_rows(job.workdir / "metrics.jsonl")


def test_every_preset_is_here():
    assert {f"configs.{p.stem}" for p in Path("configs").glob("*.py") if p.stem != "__init__"} == PRESETS.keys()


def test_a_contrast_set_of_several_batches(tmp_path):
    job = job_lib.prepare(small(contrast_size=128, batch_size=64), tmp_path)
    assert job.order.steps_per_epoch == 1437 // 128
    row = take_steps(job, 1)[0]
    assert row["cross_view_count"] == 128 * 127
    assert row["theory_contrast_set_negative"] == pytest.approx(-1 / 127)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_every_preset_takes_a_step(preset, tmp_path):
    job = preset.get_config()
    assert {path for path in config_lib.flatten(job) if "kwargs" not in path} == FIELDS.keys()
    set_fields(job, TINY)
    job.data.image_size = min(job.data.image_size, 32)
    if job.data.source != "digits":
        colours = len(job.data.mean) if "mnist" in preset.__name__ else 3
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (40, 40, 40, colours), np.uint8)
        np.savez(tmp_path / "images.npz", image=images, label=np.arange(40) % 4)
        job.data.source = f"npz:{tmp_path / 'images.npz'}"
    rows = take_steps(job_lib.prepare(job, tmp_path / "run"), 1)
    assert len(rows) == 1 and np.isfinite(rows[0]["loss"])


def test_fashion_mnist_where_it_is_prepared(tmp_path):
    prepared = Path(__file__).parents[2].parent / "shared" / "data" / "tensorflow_datasets"
    if not prepared.is_dir():
        pytest.skip("Fashion-MNIST is not prepared here")
    preset = fashion_mnist.get_config()
    set_fields(preset, {**TINY, "data.directory": str(prepared)})
    job = job_lib.prepare(preset, tmp_path)
    assert (len(job.train), len(job.test)) == (60_000, 10_000)
    assert np.isfinite([row["loss"] for row in take_steps(job, 2)]).all()


OTHER_LOSSES = {
    "info_nce": {},
    "dcl": {"loss.kwargs.sigma": 0.5},
    "dhel": {"loss.kwargs.form": "sum"},
    "siglip": {"loss.kwargs.bias": -5.0},
    "spectral": {},
    "kcl": {"loss.kwargs.kernel": "imq"},
    "align_uniform": {"loss.kwargs.weight": 2.0},
    "moco": {"estimator.queue_size": 100, "estimator.encoder_momentum": 0.99},
    "sogclr": {"loss.kwargs.update_weight": 0.5},
    "sup_con": {"loss.kwargs.temperature": 0.1},
    "multi_view_info_nce": {"loss.kwargs.form": "joint", "num_views": 3},
    "multi_view_dhel": {"loss.kwargs.form": "mean", "num_views": 4},
}


def test_the_losses_that_are_tried_exist():
    assert OTHER_LOSSES.keys() <= objective.LOSSES.keys()


@pytest.mark.parametrize("name", objective.LOSSES)
def test_every_loss_is_accepted_with_its_hyperparameters(name):
    check(config(**{"loss.name": name, **OTHER_LOSSES.get(name, {})}), num_devices=1)


def test_the_precision_reaches_the_step(tmp_path):
    """The products of the loss and of VRNS have it, all others the precision that they had."""

    def count(precision):
        job = job_lib.prepare(small(vrns_weight=1.0, contrast_size=16, **{"loss.precision": precision}), tmp_path)
        batch = {"image": np.zeros((64, *job.train.image_shape), np.uint8), "id": np.arange(64, dtype=np.int32)}
        text = job.mapped.step.lower(job.mapped.place_state(job.initial), job.mapped.place_batch(batch)).as_text()
        names = ("HIGHEST", "HIGH", "DEFAULT")
        return dict(zip(names, (text.count(f"precision = [{x}, {x}]") for x in names), strict=True))

    highest, high = map(count, ("highest", "high"))
    assert highest["HIGH"] == 0 < high["HIGH"]
    assert high == {**highest, "HIGHEST": highest["HIGHEST"] - high["HIGH"], "HIGH": high["HIGH"]}
    assert highest["HIGHEST"] > high["HIGH"]  # the distribution


def test_mean_and_variance_of_the_negatives_are_logged_without_the_distribution(tmp_path):
    def rows(distribution):
        fields = {"contrast_size": 16, "log.distribution": distribution}
        return take_steps(job_lib.prepare(small(**fields), tmp_path / str(distribution)), 2)

    names = ("cross_view_mean", "cross_view_variance")
    for full, row in zip(rows(True), rows(False), strict=True):
        assert {name for name in row if name.startswith(("cross", "positive", "within", "theory"))} == set(names)
        assert [row[name] for name in names] == pytest.approx([full[name] for name in names], rel=1e-4)
        assert row["loss"] == full["loss"]
    events = b"".join(p.read_bytes() for p in (tmp_path / "False" / "tensorboard").iterdir())
    assert b"cross_view_variance" in events and b"cross_view_count" not in events


@pytest.mark.parametrize("name", ["sup_con", "multi_view_info_nce"])
def test_other_losses_train_by_name(name, tmp_path):
    (row,) = take_steps(job_lib.prepare(small(**{"loss.name": name, **OTHER_LOSSES[name]}), tmp_path), 1)
    assert row["loss"] == row[name] and np.isfinite(row["loss"])
    assert row["cross_view_count"] == 64 * 63  # of two views, whatever their number


def test_what_is_learnt_of_a_loss_is_logged_and_resumed(tmp_path):
    overrides = {"loss.name": "siglip", "loss.learnable": True, "optimizer.warmup_epochs": 0.0}
    job = job_lib.prepare(config(**overrides), tmp_path)
    take_steps(job, 1)
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        learnt = checkpoints.restore(job.initial).params.loss
    first, second = take_steps(job, 2)
    assert (first["scale"], first["bias"]) == (pytest.approx(10.0), -10.0)
    assert (second["scale"], second["bias"]) == (pytest.approx(np.exp(learnt["log_scale"])), learnt["bias"])
    assert abs(second["scale"] - 10) > 1e-2 and abs(second["bias"] + 10) > 1e-2
    events = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard").iterdir())
    assert b"scale" in events and b"bias" in events
