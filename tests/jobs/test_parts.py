"""Runs of one's own parts keep every promise: named or given, resumed bit for bit, recorded, refused in one line."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from contrastive_jax import losses, models
from contrastive_jax.data import sources
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import command_line, parts, run
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs.logs import rows
from tests.jobs import own_parts
from tests.jobs.support import MLP, QUICK, config, small, train

HERE = "tests.jobs.own_parts"
NAMED = {
    "data.source": f"{HERE}:stripes",
    "model.name": f"{HERE}:Encoder",
    "model.kwargs.width": 6,
    "loss.name": f"{HERE}:triplets",
    "loss.kwargs.margin": 0.25,
    "log.metrics": (f"{HERE}:spread", f"{HERE}:largest_id"),
    "batch_size": 16,
    "views.jitter": 0.0,
}
LITTLE = {"evaluation.probe_epochs": 1, "evaluation.draws": 1}
GIVEN = parts.Own(
    encoder=functools.partial(own_parts.Encoder, width=6),
    loss=functools.partial(own_parts.triplets, margin=0.25),
    train=own_parts.stripes("train"),
    test=own_parts.stripes("test"),
    metrics=(own_parts.spread, own_parts.largest_id),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of parts that are named, not interrupted: its folder and its summary."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    with jax.numpy_dtype_promotion("standard"):
        return workdir, run.run(config(**NAMED, **LITTLE), workdir, steps=6)


def test_a_run_of_own_parts_leaves_all_that_a_run_leaves(whole):
    workdir, summary = whole
    assert summary["num_instances"] == 96 and summary["evaluation"].keys() >= {"raw pixels", "trained encoder"}
    logged = rows.read_rows(workdir / rows.ROWS)
    assert len(logged) == 6 and logged[-1]["loss"] == logged[-1]["triplets"]
    assert len(logged[-1]["spread_by_dimension"]) == 16 and logged[-1]["spread"] > 0
    assert 16 <= logged[-1]["largest_id"] < 96 and logged[-1]["cross_view_count"] == 16 * 15
    events = b"".join(p.read_bytes() for p in (workdir / "tensorboard").iterdir())
    assert b"spread_by_dimension" in events and b"largest_id" in events


def test_the_configuration_says_what_was_used(whole):
    workdir, _ = whole
    used = json.loads((workdir / "config.json").read_text())
    assert used["model"]["name"] == f"{HERE}:Encoder" and used["model"]["kwargs"] == {"width": 6}
    assert used["loss"]["name"] == f"{HERE}:triplets" and used["loss"]["kwargs"] == {"margin": 0.25}
    assert used["log"]["metrics"] == [f"{HERE}:spread", f"{HERE}:largest_id"]
    again = command_line.parse([f"--config={workdir}/config.json", f"--workdir={workdir}"]).config
    assert job_lib.prepare(again, workdir).config == again


def test_resumed_equals_uninterrupted(whole, tmp_path):
    """Dropout, normalisation, own numbers and own data among it."""
    job = job_lib.prepare(config(**NAMED, **LITTLE), tmp_path)
    train(job.config, tmp_path, 3, job=job)
    resumed, uninterrupted = (train(job.config, workdir, 6, job=job) for workdir in (tmp_path, whole[0]))
    jax.tree.map(np.testing.assert_array_equal, resumed, uninterrupted)
    assert (tmp_path / rows.ROWS).read_bytes() == (whole[0] / rows.ROWS).read_bytes()


def test_parts_given_from_python_are_the_same_run(whole, tmp_path):
    plain = config(**{"batch_size": 16, "views.jitter": 0.0})
    given = train(plain, tmp_path, 6, own=GIVEN)
    jax.tree.map(np.testing.assert_array_equal, given, train(config(**NAMED, **LITTLE), whole[0], 6))
    used = json.loads((tmp_path / "config.json").read_text())
    assert used["model"]["name"] == f"{HERE}:Encoder" and used["model"]["kwargs"] == {"width": 6}
    assert used["loss"]["kwargs"] == {"margin": 0.25} and used["data"]["source"] == f"{HERE}:Stripes"
    with pytest.raises(UsageError, match=r"got another: .*loss.name"):
        train(plain, tmp_path, 6, own=GIVEN._replace(loss=losses.dhel))


def test_values_that_json_cannot_hold_stay_bound(tmp_path):
    """And those of NumPy are recorded as Python's."""

    def kernel(squared):
        return 1 / (1 + squared)

    own = parts.Own(loss=functools.partial(losses.kcl, kernel=kernel, gamma=np.float32(8)))
    job = job_lib.prepare(small(), tmp_path, own=own)
    assert dict(job.config.loss.kwargs) == {"gamma": 8.0}
    assert job.program.objective.loss.keywords == {"kernel": kernel}


@pytest.mark.parametrize("given", [optax.sgd(0.1), "adamw", lambda schedule: optax.sgd(schedule)])
def test_an_optimizer_may_be_given_in_any_form(given, tmp_path):
    job = job_lib.prepare(small(), tmp_path, own=parts.Own(optimizer=given, metrics=own_parts.largest_id))
    assert isinstance(job.program.optimizer, optax.GradientTransformation) and "largest_id" in job.program.metrics


def test_test_images_of_another_shape_or_class_are_refused_before_training(tmp_path):
    train = sources.ArraySource(np.zeros((64, 8, 8), np.uint8), np.arange(64) % 2)
    for test, message in (
        (sources.ArraySource(np.zeros((8, 9, 9), np.uint8), np.arange(8) % 2), r"expected the shape \(8, 8, 1\)"),
        (sources.ArraySource(np.zeros((8, 8, 8), np.uint8), np.arange(8) % 3), "expected the 2 classes .*, got 2"),
    ):
        with pytest.raises(UsageError, match=message):
            job_lib.prepare(config(), tmp_path, own=parts.Own(train=train, test=test))


def test_what_is_no_part_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"own\.loss: expected a function or its name, got int"):
        job_lib.prepare(small(), tmp_path, own=parts.Own(loss=3))
    module = own_parts.Encoder((8, 8, 1), rngs=nnx.Rngs(0))
    assert job_lib.prepare(small(), tmp_path, own=parts.Own(encoder=module)).program.dimensions == 16


def test_metrics_from_python_stand_beside_those_of_the_configuration(tmp_path):
    given = small(**{"log.metrics": (f"{HERE}:spread",)})
    job = job_lib.prepare(given, tmp_path, own=parts.Own(metrics=own_parts.largest_id))
    assert job.config.log.metrics == (f"{HERE}:spread", f"{HERE}:largest_id")
    again = job_lib.prepare(job.config, tmp_path, own=parts.Own(metrics=own_parts.largest_id))
    assert list(job.program.metrics) == list(again.program.metrics) == ["distribution", "spread", "largest_id"]


@pytest.mark.parametrize("labels", [np.arange(64) % 4 * 2, np.arange(64) % 4 + 1], ids=["gaps", "from one"])
def test_only_the_classes_that_occur_need_examples(labels, tmp_path):
    train = sources.ArraySource(np.zeros((64, 8, 8), np.uint8), labels)
    assert job_lib.prepare(small(), tmp_path, own=parts.Own(train=train)).config.evaluation.labels_per_class == 5
    train = sources.ArraySource(np.zeros((64, 8, 8), np.uint8), np.where(np.arange(64) < 3, 9, labels))
    with pytest.raises(UsageError, match="labels_per_class=5: expected at most the 3 training images of class 9"):
        job_lib.prepare(config(), tmp_path, own=parts.Own(train=train))


def test_an_error_is_said_with_the_last_line_of_ones_own(tmp_path):
    def of_the_library(schedule):
        return optax.chain(*schedule.no_such_attribute)

    def deep(schedule):
        return json.loads({})

    for given in (of_the_library, deep):
        with pytest.raises(UsageError, match=rf"test_parts.py, line \d+, in {given.__name__}\)"):
            job_lib.prepare(small(), tmp_path, own=parts.Own(optimizer=given))


def test_a_named_loss_given_from_python_has_its_name(tmp_path):
    own = parts.Own(loss=functools.partial(losses.dhel, temperature=0.3, form="sum"))
    used = job_lib.prepare(small(), tmp_path, own=own).config
    assert used.loss.name == "dhel" and dict(used.loss.kwargs) == {"temperature": 0.3, "form": "sum"}


def test_images_without_labels_train_and_are_measured(tmp_path, capsys):
    unlabelled = {"data.source": f"{HERE}:unlabelled", "batch_size": 16}
    summary = run.run(small(**QUICK | unlabelled), tmp_path, steps=2)
    assert summary["evaluation"] == {} and summary["geometry"].keys() == {"untrained encoder", "trained encoder"}
    said = capsys.readouterr()
    assert "Skipping the scores: the images have no labels" in said.err and "| trained encoder |" in said.out


def test_another_model_than_the_run_began_with_is_refused(tmp_path):
    """The code of a part may change without its name."""
    given = config(batch_size=16)
    built = [own_parts.Encoder((8, 8, 1), width=width, rngs=nnx.Rngs(0)) for width in (6, 7)]
    train(given, tmp_path, 1, own=parts.Own(encoder=built[0], optimizer=lambda schedule: optax.sgd(schedule)))
    with pytest.raises(UsageError, match=r"checkpoints/1: expected the model that the run began with, whose .*Restore"):
        train(given, tmp_path, 2, own=parts.Own(encoder=built[1], optimizer=lambda schedule: optax.sgd(schedule)))
    with pytest.raises(UsageError, match=r"checkpoints/1: expected the model that .*arrays of other names. Restore"):
        train(given, tmp_path, 2, own=parts.Own(encoder=built[0], optimizer=lambda schedule: optax.sgd(schedule, 0.9)))
    assert not (tmp_path / "damaged").exists()
    train(given, tmp_path, 2, own=parts.Own(encoder=built[0], optimizer=lambda schedule: optax.sgd(schedule)))


def test_a_scalar_type_is_recorded_by_its_name(tmp_path):
    own = parts.Own(encoder=functools.partial(models.ENCODERS["resnet10"], dtype=jnp.bfloat16))
    assert job_lib.prepare(config(), tmp_path, own=own).config.model.kwargs.dtype == "bfloat16"


@pytest.mark.parametrize(("name", "head"), [("mlp", "none"), ("vit_tiny", "projection")])
def test_built_in_encoders_and_heads_train_by_name(name, head, tmp_path):
    small = {"mlp": {"hidden": (16,)}, "vit_tiny": {"patch_size": 4, "depth": 1}}[name]
    fields = {f"model.kwargs.{key}": value for key, value in small.items()}
    train(config(**{"model.name": name, "model.head": head, **fields}), tmp_path, 1)
    (row,) = rows.read_rows(tmp_path / rows.ROWS)
    assert np.isfinite(row["loss"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.name": f"{HERE}:nothing"}, f"config.model.name={HERE}:nothing: .*no attribute 'nothing'"),
        ({"model.name": f"{HERE}:flat_encoder"}, r"config.model.name=.*expected .* features \[b, f\]"),
        ({"model.name": f"{HERE}:Encoder", "model.kwargs.depth": 2}, "of encoder .*Encoder', which takes width, rate"),
        ({"loss.name": f"{HERE}:reduced"}, r"config.loss.name='.*reduced'.*expected one value for each pair"),
        ({"loss.name": f"{HERE}:stripes"}, r"config.loss.name='.*stripes'"),
        ({"log.metrics": (f"{HERE}:loss",)}, "the first step cannot be traced: logged numbers: .*got 'loss'"),
        ({"log.metrics": (f"{HERE}:flat_encoder",)}, "the first step cannot be traced: TypeError: flat_encoder"),
        ({"data.source": f"{HERE}:spread"}, "config.data.source='tests.jobs.own_parts:spread': "),
        (
            {"data.source": f"{HERE}:unlabelled", "loss.name": "sup_con"},
            "loss.name='sup_con': expected a source with labels",
        ),
        ({"optimizer.name": f"{HERE}:no_optimizer"}, "optimizer.name='.*': expected an Optax .*, got NoneType"),
        (
            {"optimizer.name": f"{HERE}:fails"},
            r"config.optimizer.name='.*': KeyError: 'by design' \(.*own_parts.py, line",
        ),
        ({"model.name": f"{HERE}:fails", "model.kwargs.a": 1}, "config.model.name='.*KeyError: 'by design'"),
        ({"loss.name": f"{HERE}:fails"}, "config.loss.name='.*KeyError: 'by design'"),
        ({"loss.name": "math:log"}, "config.loss.name=math:log: expected a Python function with a signature"),
        (
            {"log.metrics": (f"{HERE}:no_number",)},
            "expected a scalar or an array of real numbers as 'no_number', got None",
        ),
        ({"log.metrics": (f"{HERE}:nested",)}, "expected a scalar or an array of real numbers as 'a', got dict"),
        ({"log.metrics": (f"{HERE}:spread",) * 2}, "config.log.metrics: .*got 'spread' twice"),
        ({"loss.name": f"{HERE}:step"}, "loss: expected a name that the log does not use, got 'step'"),
        ({"log.metrics": (f"{HERE}:shadow",)}, "expected a name of its own, got 'cross_view_mean'"),
        ({"data.source": f"{HERE}:late"}, r"take: expected uint8 \[64, 8, 8, 1\] at .*, got float32 .*convert them"),
    ],
)
def test_parts_that_do_not_fit_leave_nothing(overrides, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        run.run(config(**({} if "model.name" in overrides else MLP) | overrides), tmp_path / "run")
    assert len(str(error.value).splitlines()) <= 2
    assert not (tmp_path / "run").exists()
