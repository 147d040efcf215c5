"""Configurations: the presets, and what is refused before anything is made."""

from pathlib import Path

import numpy as np
import pytest

from configs import cifar10, cifar100, digits, fashion_mnist, folder, imagenet100, smoke
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import run, validation
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


def test_a_configuration_comes_back_from_its_json():
    given = config(**{"views.crop_scale": (0.25, 0.75), "contrast_size": 16, "loss.kwargs.temperature": 0.25})
    assert config_lib.from_json(given.to_json()) == given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seed": 1', "expected the configuration of a run as JSON"),
        ("[1]", "expected the configuration of a run as JSON"),
        ('{"sead": 1}', "config.sead: expected the name of a field; similar fields are seed"),
        ('{"seed": "one"}', "config.seed='one': expected a value of type int, got str"),
        ('{"loss": {"name": "dcl", "kwargs": {"tau": 1}}}', "loss 'dcl', which takes temperature, sigma"),
    ],
)
def test_json_that_is_no_configuration(text, message):
    with pytest.raises(UsageError, match=message):
        config_lib.from_json(text)


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


def test_a_contrast_set_of_several_batches(tmp_path):
    job = job_lib.prepare(small(contrast_size=128, batch_size=64), tmp_path)
    assert job.order.steps_per_epoch == 1437 // 128
    row = take_steps(job, 1)[0]
    assert row["cross_view_count"] == 128 * 127
    assert row["theory_contrast_set_negative"] == pytest.approx(-1 / 127)


def test_the_full_batch_is_all_that_devices_can_share():
    full, given = config(contrast_size=0), {"num_instances": 1437, "num_devices": 8}
    assert config_lib.contrast_size(full, **given) == config_lib.update_size(full, **given) == 1432
    assert config_lib.contrast_size(full, num_instances=1437, num_devices=1) == 1437
    assert config_lib.contrast_size(config(), **given) == config_lib.update_size(config(), **given) == 64


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_every_preset_takes_a_step(preset, tmp_path):
    job = preset.get_config()
    assert {path for path in config_lib.flatten(job) if "kwargs" not in path} == config_lib.FIELDS.keys()
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
        run.run(config(), tmp_path)


def test_a_workdir_of_an_earlier_version(tmp_path):
    """Even a field that may change between two starts: without it, the checkpoints are others too."""
    given = config().to_json().replace('"on_nonfinite": "stop", ', "")
    assert "on_nonfinite" not in given
    (tmp_path / "config.json").write_text(given)
    with pytest.raises(UsageError, match=r"got another: on_nonfinite \(there None, here 'stop'\)"):
        run.run(config(), tmp_path)
    assert (tmp_path / "config.json").read_text() == given


def test_steps_below_one(tmp_path):
    with pytest.raises(UsageError, match="--steps=0: expected at least 1"):
        run.run(config(), tmp_path / "run", steps=0)


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


def test_nested_tuples_come_back_from_json():
    text = config(**{"loss.name": "tests.jobs.own_parts:anything", "loss.kwargs.sizes": ((1, 2), (3, 4))}).to_json()
    assert config_lib.from_json(text).loss.kwargs.sizes == ((1, 2), (3, 4))


def test_arguments_are_not_nested():
    given = config(**{"loss.name": "tests.jobs.own_parts:anything"})
    with pytest.raises(UsageError, match=r"config.loss.kwargs.a.b: expected .*, got a dictionary"):
        config_lib.set_from_text(given, "loss.kwargs.a.b", "3")


def test_arguments_of_a_part_of_ones_own_have_its_types_and_no_limits_of_ours():
    given = config(**{"loss.name": "tests.jobs.own_parts:typed"})
    for name, text, value in [
        ("temperature", "0.5", 0.5),
        ("temperature", "-2", -2),
        ("width", "none", None),
        ("mode", "none", "none"),
        ("others", "none", None),
    ]:
        config_lib.set_from_text(given, f"loss.kwargs.{name}", text)
        assert given.loss.kwargs[name] == value
    assert not list(validation.field_faults(given))
    assert config_lib.from_json(given.to_json()).loss.kwargs.to_dict() == given.loss.kwargs.to_dict()
    for name, text, expected in [("temperature", "warm", "number"), ("width", "0.5", "value of type int")]:
        with pytest.raises(UsageError, match=rf"config.loss.kwargs.{name}={text}: expected a {expected}"):
            config_lib.set_from_text(given, f"loss.kwargs.{name}", text)


@pytest.mark.parametrize("name", ["ids", "axis_name", "labels"])
def test_arguments_that_the_job_passes_are_not_set(name):
    given = config(**{"loss.name": "tests.jobs.own_parts:anything"})
    with pytest.raises(UsageError, match=rf"config.loss.kwargs.{name}: expected an argument that is yours to set"):
        config_lib.set_from_text(given, f"loss.kwargs.{name}", "3")


def test_names_of_metrics_may_be_separated_by_spaces_or_cleared():
    given = config()
    config_lib.set_from_text(given, "log.metrics", "a.b:c, d.e:f")
    assert given.log.metrics == ("a.b:c", "d.e:f")
    config_lib.set_from_text(given, "log.metrics", "none")
    assert given.log.metrics == ()


def test_unknown_fields_are_named_with_their_neighbours():
    with pytest.raises(
        UsageError, match=r"config.loss.learns: expected the name of a field; similar fields are .*loss.learnable"
    ):
        config_lib.find_field("loss.learns", config())


def test_a_keyword_argument_has_the_type_that_the_named_part_gives_it():
    """`gamma` weighs the negatives of kcl, and is no argument of sogclr."""
    given = config(**{"loss.name": "kcl"})
    config_lib.set_from_text(given, "loss.kwargs.gamma", "8")
    assert given.loss.kwargs.gamma == 8.0 and isinstance(given.loss.kwargs.gamma, float)
    with pytest.raises(UsageError, match=r"config.loss.kwargs.gamma=much: expected a value of type float"):
        config_lib.set_from_text(given, "loss.kwargs.gamma", "much")
    given = config(**{"loss.name": "sogclr"})
    with pytest.raises(UsageError, match="of loss 'sogclr', which takes temperature, update_weight"):
        config_lib.set_from_text(given, "loss.kwargs.gamma", "8")
