"""Batches: a pure function of (seed, step), each process's part of them, and their arrival ahead of time."""

import threading

import numpy as np
import pytest

from contrastive_jax.data import batches, sources
from contrastive_jax.errors import SourceError


def order_of(num_instances=23, update_size=5, seed=0, partition="reshuffled"):
    return batches.BatchOrder(num_instances, update_size, seed, partition)


def source_of(num_instances=23):
    images = np.arange(num_instances, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return sources.ArraySource(images, np.arange(num_instances) % 3, name="numbers")


class Unreadable:
    image_shape = (2, 2, 1)

    def __len__(self):
        return 23

    def take(self, indices):
        raise SourceError("a.png: not a readable image")


@pytest.mark.parametrize("partition", batches.PARTITIONS)
def test_indices_are_a_pure_function_of_seed_and_step(partition):
    steps = [9, 0, 3, 9, 4]
    first = [order_of(partition=partition).indices(step) for step in steps]
    batches._permutation.cache_clear()
    for step, indices in zip(reversed(steps), reversed(first), strict=True):
        np.testing.assert_array_equal(order_of(partition=partition).indices(step), indices)
    assert first[0].dtype == np.int64
    assert not np.array_equal(order_of(seed=1, partition=partition).indices(9), first[0])


@pytest.mark.parametrize("partition", batches.PARTITIONS)
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_instance_is_in_an_epoch_once(partition, epoch):
    order = order_of(num_instances=20, partition=partition)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    assert {order.epoch(step) for step in steps} == {epoch}
    assert sorted(np.concatenate([order.indices(step) for step in steps])) == list(range(20))


def test_an_incomplete_last_batch_is_left_out():
    order = order_of()
    assert order.steps_per_epoch == 4
    assert len(np.unique(np.concatenate([order.indices(step) for step in range(4)]))) == 20


def test_fixed_keeps_its_batches_and_reshuffled_does_not():
    fixed, reshuffled = order_of(partition="fixed"), order_of()
    for step in range(4):
        np.testing.assert_array_equal(fixed.indices(step), fixed.indices(step + 4 * 7))
        np.testing.assert_array_equal(fixed.indices(step), reshuffled.indices(step))
        assert set(reshuffled.indices(step)) != set(reshuffled.indices(step + 4 * 7))


def test_the_whole_training_set_may_be_one_batch():
    order = order_of(update_size=23)
    assert order.steps_per_epoch == 1
    assert sorted(order.indices(2)) == list(range(23))


def test_bad_orders_are_refused():
    with pytest.raises(ValueError, match="update_size: expected from 1 to 23, the size of the training set, got 24"):
        order_of(update_size=24)
    with pytest.raises(ValueError, match=r"expected from 1 to 23.*got 0"):
        order_of(update_size=0)
    with pytest.raises(ValueError, match="partition: expected one of reshuffled, fixed, got 'shuffled'"):
        order_of(partition="shuffled")


def test_iterate_reads_the_order_from_any_step():
    order = order_of()
    steps = list(batches.iterate(source_of(), order, start=2, stop=11))
    assert len(steps) == 9
    for step, batch in enumerate(steps, start=2):
        np.testing.assert_array_equal(batch["id"], order.indices(step))
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], order.indices(step))
        np.testing.assert_array_equal(batch["label"], order.indices(step) % 3)
        assert batch["epoch"] == order.epoch(step)
    types = {key: (value.dtype, value.shape) for key, value in steps[0].items()}
    assert types == {
        "image": (np.uint8, (5, 2, 2, 1)),
        "label": (np.int32, (5,)),
        "id": (np.int32, (5,)),
        "epoch": (np.int32, ()),
    }
    assert list(batches.iterate(source_of(), order, start=4, stop=4)) == []


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_processes_parts_make_the_whole_batch(process_count):
    source, order = source_of(), order_of(update_size=8)
    whole = batches.iterate(source, order, start=1, stop=5)
    parts = [
        batches.iterate(source, order, start=1, stop=5, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    for expected, *found in zip(whole, *parts, strict=True):
        for key in ("image", "label", "id"):
            np.testing.assert_array_equal(np.concatenate([part[key] for part in found]), expected[key])
        assert {int(part["epoch"]) for part in found} == {int(expected["epoch"])}


def test_iterate_refuses_before_it_reads():
    with pytest.raises(ValueError, match="expected an update_size that 2 processes share equally, got 5"):
        batches.iterate(source_of(), order_of(), start=0, stop=1, process_count=2)
    with pytest.raises(ValueError, match="expected an order over the 20 images of numbers, got one over 23"):
        batches.iterate(source_of(20), order_of(), start=0, stop=1)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_reading_errors_reach_the_caller_as_themselves(num_threads):
    stream = batches.iterate(Unreadable(), order_of(), start=0, stop=9, num_threads=num_threads)
    with pytest.raises(SourceError) as caught:
        next(stream)
    assert str(caught.value) == "a.png: not a readable image"


def test_closing_stops_the_threads():
    stream = batches.prefetch(batches.iterate(source_of(), order_of(), start=0, stop=10**6), lambda batch: batch)
    next(stream)
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]
    assert workers
    stream.close()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive()


def test_sequential_covers_everything_in_batches_of_one_shape():
    found = list(batches.sequential(source_of(), 10))
    assert [batch["image"].shape for batch in found] == [(10, 2, 2, 1)] * 3
    assert [int(batch["mask"].sum()) for batch in found] == [10, 10, 3]
    mask = np.concatenate([batch["mask"] for batch in found])
    np.testing.assert_array_equal(np.concatenate([batch["id"] for batch in found])[mask], np.arange(23))
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in found])[mask], source_of().labels)
    assert len(list(batches.sequential(source_of(), 23))) == 1
    with pytest.raises(ValueError, match="at least 1"):
        batches.sequential(source_of(), 0)


def test_sequential_takes_the_instances_that_are_asked_for():
    chosen = np.array([3, 20, 7])
    first, second = batches.sequential(source_of(), 2, indices=chosen)
    np.testing.assert_array_equal(np.concatenate([first["id"], second["id"]]), [3, 20, 7, 7])
    np.testing.assert_array_equal(np.concatenate([first["mask"], second["mask"]]), [True, True, True, False])
    np.testing.assert_array_equal(first["label"], source_of().labels[[3, 20]])


def test_a_sample_depends_on_the_seed_alone():
    found = batches.sample(100, 40, seed=3)
    assert len(set(found)) == 40 and (np.diff(found) > 0).all()
    assert found[0] >= 0 and found[-1] < 100
    np.testing.assert_array_equal(found, batches.sample(100, 40, seed=3))
    assert (found != batches.sample(100, 40, seed=4)).any()
    np.testing.assert_array_equal(batches.sample(5, 40, seed=3), np.arange(5))


@pytest.mark.parametrize("size", [0, 2])
def test_prefetch_keeps_order_and_runs_ahead(size):
    placed = []
    stream = batches.prefetch(iter(range(6)), lambda batch: placed.append(batch) or -batch, size)
    assert next(stream) == 0
    assert len(placed) == size + 1
    assert list(stream) == [-1, -2, -3, -4, -5]
    assert placed == list(range(6))
