"""What is refused before anything is made, and what is said of it."""

import numpy as np
import pytest

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import run
from tests.jobs.support import check, config, small


def test_all_that_is_wrong_is_said_at_once():
    wrong = {"optimizer.learning_rate": float("inf"), "epochs": 0, "data.std": (float("nan"),), "partition": "random"}
    with pytest.raises(UsageError) as error:
        check(config(**wrong), num_devices=1)
    assert {line.split("=")[0] for line in str(error.value).splitlines()} == {f"config.{name}" for name in wrong}
    with pytest.raises(UsageError) as error:
        wrong = {
            "loss.kwargs.sigma": 1.0,
            "loss.kwargs.tau": 1.0,
            "batch_size": 63,
            "views.flip": 2.0,
            "views.blur": 2.0,
        }
        check(config(**wrong), num_devices=2)
    assert len(str(error.value).splitlines()) == len(wrong)
    with pytest.raises(UsageError) as error:
        check(config(epochs=0, batch_size=0, contrast_size=100, num_views=3), num_devices=1)
    # Nothing of the set that does not divide the batch, whose size is at fault itself.
    said = {line.split("=")[0] for line in str(error.value).splitlines()}
    assert said == {"config.epochs", "config.batch_size", "config.num_views"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"loss.name": "triplet"}, r"config.loss.name='triplet': expected one of .*'info_nce'"),
        ({"model.name": "vgg"}, "config.model.name='vgg': expected one of 'resnet10', 'resnet18'"),
        ({"parallelism": "threads"}, "config.parallelism='threads': expected one of 'shard_map', 'pmap'"),
        ({"partition": "sorted"}, "config.partition='sorted'"),
        ({"optimizer.name": "adam"}, "config.optimizer.name='adam': expected one of 'sgd', 'lars', 'adamw'"),
        ({"data.source": "imagenet"}, "config.data.source='imagenet'.*npz:PATH or package.module:function"),
        ({"data.source": "folder:/nowhere"}, "config.data.source='folder:/nowhere'"),
        (
            {"data.source": "tfds:cifar10", "data.directory": "/nowhere"},
            r"not prepared.*pip install.*download_and_prep",
        ),
        ({"seed": 2**32}, "config.seed=4294967296: expected a whole number from 0 to 4294967295"),
        ({"data.mean": ("a",)}, r"config.data.mean=\('a',\): expected numbers, one or one for each channel"),
        ({"batch_size": 60}, "config.batch_size=60: expected a multiple of the 8 devices"),
        ({"contrast_size": 24}, "config.contrast_size=24: expected a divisor of config.batch_size=64"),
        ({"contrast_size": 100}, "config.contrast_size=100: expected a multiple of the 8 devices"),
        ({"contrast_size": 1440}, "config.contrast_size=1440: expected at most the 1437 images.*full is all of them"),
        ({"contrast_size": 1}, "config.contrast_size=1: expected a whole number >= 2, or full"),
        ({"batch_size": 1600}, "config.batch_size=1600: expected at most the 1437 images"),
        ({"loss.kwargs.temperature": 0.0}, "config.loss.kwargs.temperature=0.0: expected a number > 0"),
        ({"loss.kwargs.form": "sum"}, "expected a keyword argument of loss 'simclr', which takes temperature"),
        ({"loss.name": "dhel", "loss.kwargs.form": "both"}, "config.loss.kwargs: losses.dhel: .*'both'"),
        ({"loss.precision": "HIGH"}, "config.loss.precision='HIGH': expected one of 'highest', 'high', 'default', "),
        (
            {"loss.precision": "TF32_TF32_F32"},
            "config.loss.precision='TF32_TF32_F32': expected a precision that this cpu has: .*not supported .* on CPU",
        ),
        (
            {"loss.precision": "high", "loss.name": "tests.jobs.own_parts:triplets"},
            "config.loss.precision='high': expected 'highest' for loss '.*:triplets', which has no parameter `prec",
        ),
        ({"loss.kwargs.precision": "high"}, "config.loss.kwargs.precision: .*'simclr', from config.loss.precision"),
        ({"views.flip": 1.5}, "config.views.flip=1.5: "),
        ({"num_views": 1}, "config.num_views=1: expected a whole number >= 2"),
        (
            {"num_views": 3, "loss.name": "sup_con"},
            "config.num_views=3: expected 2 for loss 'sup_con'.*'multi_view_dhel', 'multi_view_info_nce'",
        ),
        (
            {"loss.name": "dcl", "loss.learnable": True},
            "config.loss.learnable=True: expected false for loss 'dcl'.*'siglip', 'info_nce', 'simclr'",
        ),
        (
            {"loss.name": "siglip", "loss.learnable": True, "loss.kwargs.scale": 200.0},
            r"config.loss.kwargs.scale=200.0: expected a start in \(0, 100\]",
        ),
        (
            {"loss.learnable": True, "loss.kwargs.temperature": 0.005},
            "config.loss.kwargs.temperature=0.005: expected at least 0.01",
        ),
        (
            {"loss.name": "moco", "estimator.queue_size": 63},
            "config.estimator.queue_size=63: expected at least 64: all images of a step enter it",
        ),
        (
            {"loss.name": "moco", "estimator.encoder_momentum": 1.0},
            r"config.estimator.encoder_momentum=1.0: expected a number in \[0, 1\)",
        ),
        (
            {"loss.name": "sogclr", "estimator.encoder_momentum": 0.99},
            "config.estimator.encoder_momentum=0.99: expected none for loss 'sogclr'.*'moco'",
        ),
        (
            {"loss.name": "sogclr", "loss.kwargs.update_weight": 1.5},
            r"config.loss.kwargs: losses.sogclr: .*update_weight.*\(0, 1\]",
        ),
        ({"data.mean": (0.4, 0.4, 0.4)}, r"config.data.mean=\(0.4, 0.4, 0.4\): expected 1 number for images of 1 chan"),
        ({"model.kwargs.depth": 3}, "config.model.kwargs.depth: expected a keyword argument of encoder 'resnet10'"),
        ({"model.kwargs.width": "wide"}, "config.model.kwargs.width='wide': expected a value of type int, got str"),
        ({"model.name": "no_such_module:encoder"}, "config.model.name=no_such_module:encoder: .*no_such_module"),
        ({"log.metrics": ("no_such_module:f",)}, "config.log.metrics=no_such_module:f: "),
        ({"epochs": 0, "seed": -1}, "(?s)config.epochs=0.*config.seed=-1"),
    ],
)
def test_bad_configurations_leave_nothing(overrides, message, tmp_path):
    job = config(**overrides)
    with pytest.raises(UsageError, match=message):
        run.run(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fewer_labels_than_the_probe_needs(tmp_path):
    images = np.zeros((80, 8, 8), np.uint8)
    np.savez(tmp_path / "images.npz", image=images, label=np.r_[np.zeros(76, int), np.ones(4, int)])
    with pytest.raises(
        UsageError, match=r"config.evaluation.labels_per_class=5: expected at most the 3 training images of class 1"
    ):
        run.run(config(**{"data.source": f"npz:{tmp_path}/images.npz"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_with_a_broken_configuration(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config.json: expected the JSON that a run wrote.*another workdir"):
        run.run(small(), tmp_path)


def test_a_workdir_of_an_earlier_version(tmp_path):
    """Even a field that may change between two starts: without it, the checkpoints are others too."""
    given = small().to_json().replace('"on_nonfinite": "stop", ', "")
    assert "on_nonfinite" not in given
    (tmp_path / "config.json").write_text(given)
    with pytest.raises(UsageError, match=r"got another: on_nonfinite \(unknown to the version that wrote"):
        run.run(small(), tmp_path)
    assert (tmp_path / "config.json").read_text() == given


def test_steps_below_one(tmp_path):
    with pytest.raises(UsageError, match="--steps=0: expected at least 1"):
        run.run(small(), tmp_path / "run", steps=0)
