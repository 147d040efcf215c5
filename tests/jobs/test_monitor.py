"""What is measured while a run trains: right, the same however often it is resumed and on any number of devices."""

import json

import jax
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from contrastive_jax import evaluation, spmd
from contrastive_jax.data import batches
from contrastive_jax.jobs import evaluate, monitor, passes
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs.logs import rows
from tests.jobs import own_parts
from tests.jobs.support import small, train

# Five steps an epoch, of which every second is measured.
FIELDS = {"batch_size": 256, "epochs": 6, "evaluation.every": 2, "evaluation.subset": 100, "checkpoint.every": 7}
DUE = [9, 19, 29]
NAMES = [f"evaluation_{name}" for name in ("knn", *monitor.GEOMETRY)]


def measured(workdir):
    found = rows.read_rows(workdir / rows.ROWS)
    assert [row["step"] for row in found] == list(range(len(found)))
    return {row["step"]: {name: x for name, x in row.items() if name.startswith("evaluation_")} for row in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing cuts short: its job, workdir and last state."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    with jax.numpy_dtype_promotion("standard"):
        job = job_lib.prepare(small(**FIELDS), workdir)
        return job, workdir, train(job.config, workdir, 30, job=job)


def test_every_second_epoch_and_no_other_step(whole):
    found = measured(whole[1])
    assert [step for step, row in found.items() if row] == DUE
    assert all(list(found[step]) == NAMES and np.isfinite(list(found[step].values())).all() for step in DUE)


def test_the_numbers_are_those_of_the_sample_under_the_last_state(whole):
    job, workdir, state = whole
    encode, encoder = passes.make(job), passes.place(state)
    some = [batches.sample(len(source), 100, seed=0) for source in (job.bank, job.test)]
    both = list(zip((job.bank, job.test), some, strict=True))
    a, b = (np.asarray(encode.features(encoder, source.take(ids))) for source, ids in both)
    labels = [source.labels[ids] for source, ids in both]
    options = evaluate.settings(job)
    knn = evaluation.knn(a, labels[0], b, labels[1], num_classes=10, k=100, temperature=options.knn_temperature)
    u, v = np.asarray(encode.project(encoder, job.test.take(some[1]), some[1].astype(np.int32)))
    expected = {"knn": knn, **evaluation.geometry(u, v)._asdict()}
    got = measured(workdir)[29]
    assert got == pytest.approx({name: expected[name.removeprefix("evaluation_")] for name in NAMES}, rel=1e-4)


@pytest.mark.parametrize("stops", [(9,), (10,), (11, 21)])
def test_the_log_is_the_same_however_often_it_was_resumed(whole, stops, tmp_path):
    """Before, at and after a step that is measured."""
    job, workdir, _ = whole
    for stop in (*stops, 30):
        train(job.config, tmp_path, stop, job=job)
    assert (tmp_path / rows.ROWS).read_bytes() == (workdir / rows.ROWS).read_bytes()


def test_what_was_measured_after_the_last_checkpoint_is_measured_again(whole, tmp_path):
    job, workdir, _ = whole
    train(job.config, tmp_path, 8, job=job)
    lines = (workdir / rows.ROWS).read_bytes().splitlines(keepends=True)
    (tmp_path / rows.ROWS).write_bytes(b"".join(lines[:10]) + lines[10][:30])  # killed in step 10
    counts = np.fromfile(workdir / rows.COUNTS, np.uint64)[: 10 * 3 * job.config.log.num_bins]
    counts.tofile(tmp_path / rows.COUNTS)
    train(job.config, tmp_path, 30, job=job)
    assert (tmp_path / rows.ROWS).read_bytes() == (workdir / rows.ROWS).read_bytes()


@pytest.mark.parametrize("devices", [1, 4])
def test_on_any_number_of_devices(devices, tmp_path, monkeypatch):
    """At a learning rate at which a difference of rounding stays one, see test_step."""
    monkeypatch.setattr(spmd, "devices", lambda: jax.devices()[:2])
    given = small(**FIELDS | {"optimizer.learning_rate": 1e-4, "optimizer.warmup_epochs": 0.0, "evaluation.every": 1})
    train(given, tmp_path / "two", 5)
    monkeypatch.setattr(spmd, "devices", lambda: jax.devices()[:devices])
    train(given, tmp_path / "others", 5)
    ours, theirs = measured(tmp_path / "others")[4], measured(tmp_path / "two")[4]
    assert ours == pytest.approx(theirs, rel=1e-4) and list(ours) == NAMES


def test_tensorboard_has_them_however_seldom_it_is_written(tmp_path):
    given = small(**FIELDS | {"evaluation.every": 1, "log.tensorboard_every": 100})
    train(given, tmp_path, 5)
    tags = {}
    for path in (tmp_path / "tensorboard").iterdir():
        for event in read_events(path):
            tags |= {value.tag: event.step for value in event.summary.value}
    assert {tags[name] for name in NAMES} == {4}


def read_events(path):
    data, start = path.read_bytes(), 0
    while start < len(data):
        size = int.from_bytes(data[start : start + 8], "little")
        yield event_pb2.Event.FromString(data[start + 12 : start + 12 + size])
        start += 16 + size


def test_without_labels_all_but_the_nearest_neighbours(tmp_path):
    fields = {"data.source": f"{own_parts.__name__}:unlabelled", "batch_size": 16, "evaluation.every": 1}
    job = job_lib.prepare(small(**fields), tmp_path)
    train(job.config, tmp_path, job.order.steps_per_epoch, job=job)
    (row,) = [row for row in measured(tmp_path).values() if row]
    assert list(row) == NAMES[1:] and np.isfinite(list(row.values())).all()


def test_it_may_be_left_out(tmp_path):
    train(small(**FIELDS | {"evaluation.every": None}), tmp_path, 5)
    assert not any(measured(tmp_path).values())


def test_embeddings_that_are_not_finite_are_null(whole):
    job, _, state = whole
    broken = state._replace(params=jax.tree.map(lambda x: np.full_like(x, np.nan), state.params))
    found = monitor.measure(job, passes.make(job), broken)
    assert list(found) == NAMES and np.isnan(list(found.values())).all()
    assert json.loads(json.dumps(rows.replace_nonfinite(found))) == dict.fromkeys(NAMES)
