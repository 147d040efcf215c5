"""Images decoded whenever they are needed: the same pixels as those kept, in bounded memory; threads that end."""

import contextlib
import io
import threading
import weakref
from concurrent.futures import CancelledError

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data import _ahead, _folder, _pixels, _stored, batches, sources
from contrastive_jax.errors import SourceError

GIB = 2**30


def photograph(seed, mode="RGB", size=(40, 30)):
    y, x = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([128 + 100 * np.sin((x + 9 * seed) / 7), 128 + 100 * np.cos(y / 5), 5 * x % 256], -1)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


FILES = {
    "plain.jpg": lambda file: photograph(0).save(file, "JPEG"),
    "grey.jpg": lambda file: photograph(1, "L").save(file, "JPEG"),
    "cmyk.jpeg": lambda file: photograph(2, "CMYK").save(file, "JPEG"),
    "turned.jpg": lambda file: photograph(3).save(file, "JPEG", exif=turned()),
    "progressive.JPG": lambda file: photograph(4, size=(300, 200)).save(file, "JPEG", progressive=True),
    "a.png": lambda file: photograph(5).save(file, "PNG"),
    "palette.png": lambda file: photograph(6, "P").save(file, "PNG"),
    "a.webp": lambda file: photograph(7).save(file, "WEBP", lossless=True),
    "large.jpg": lambda file: photograph(8, size=(701, 523)).save(file, "JPEG"),
}


@pytest.fixture
def folder(tmp_path):
    """Two classes of one image of each kind in train, one image of each class in test."""
    for split, files in (("train", FILES), ("test", {"0.jpg": FILES["plain.jpg"]})):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for file, save in files.items():
                save(tmp_path / split / name / file)
    return tmp_path


def load(folder, cache_bytes, split="train"):
    return sources.load(f"folder:{folder}", split=split, stored_size=16, cache_bytes=cache_bytes)


def test_what_is_kept_and_what_is_decoded_again_are_the_same(folder):
    kept, again = load(folder, GIB), load(folder, 0)
    assert kept.is_kept and not again.is_kept
    assert sources.fingerprint(kept) == sources.fingerprint(again)
    order = batches.BatchOrder(len(kept), 4, seed=0)
    streams = [batches.iterate(source, order, start=0, stop=3 * order.steps_per_epoch) for source in (kept, again)]
    count = 0
    for ours, theirs in zip(*streams, strict=True):
        count += 1
        for name in ("image", "id", "label", "epoch"):
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert count == 3 * (18 // 4)
    for ours, theirs in zip(*(batches.sequential(source, 5) for source in (kept, again)), strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cache_bytes", [0, GIB])
def test_every_kind_of_file_is_the_image_that_pillow_reads(name, cache_bytes, folder):
    """Its centre square, by the bilinear filter; but a large JPEG, which is decoded smaller, to within its rounding."""
    source = load(folder, cache_bytes)
    found = source.take(np.array([sorted(FILES).index(name)]))[0]
    with Image.open(folder / "train" / "a" / name) as image:
        image = image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
        side, (width, height) = min(image.size), image.size
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        want = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR, box=box))
    if side > 200 - 1:
        assert np.abs(found.astype(int) - want).mean() < 3
    else:
        np.testing.assert_array_equal(found, want)


def test_the_budget_is_that_of_both_splits(folder):
    count, size = 2 * len(FILES) + 2, 16 * 16 * 3
    for cache_bytes, kept in ((count * size, True), (count * size - 1, False)):
        splits = sources.load_splits(f"folder:{folder}", stored_size=16, cache_bytes=cache_bytes)
        assert [sources.is_kept(source) for source in splits] == [kept, kept]
        assert sources.bytes_to_keep(*splits) == (0 if kept else count * size)
    assert load(folder, 2 * size, split="test").is_kept
    assert sources.bytes_to_keep(sources.ArraySource(np.zeros((3, 8, 8), np.uint8))) == 0


def test_memory_that_is_not_there_is_refused_with_what_to_do(folder, monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(_stored.np, "empty", refuse)
    with pytest.raises(SourceError, match=r"expected 0\.0 GiB of memory .*lower cache_bytes .*config\.data\.cache_gib"):
        load(folder, GIB)


class Alive:
    """Counts the arrays that it was shown and that are still in memory."""

    def __init__(self):
        self.now, self.most, self.total, self._lock = 0, 0, 0, threading.Lock()

    def add(self, array):
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)
        weakref.finalize(array, self._remove)
        return array

    def _remove(self):
        with self._lock:
            self.now -= 1


class Counted:
    """A source whose batches are counted while they are alive."""

    image_shape = (4, 4, 3)

    def __init__(self, count=1000):
        self.count, self.alive = count, Alive()

    def __len__(self):
        return self.count

    def take(self, indices):
        return self.alive.add(np.zeros((len(indices), *self.image_shape), np.uint8))


def settle(stream):
    """Wait until all that may be assembled ahead is."""
    while len(stream._assembled) < 4:
        threading.Event().wait(0.001)


def test_batches_in_memory_are_bounded_in_training():
    """Four ahead, one on its way, two placed and one in use, however slow the step."""
    source = Counted()
    host = batches.iterate(source, batches.BatchOrder(1000, 10, 0), start=0, stop=60)
    for step, _ in enumerate(batches.prefetch(host, lambda batch: batch["image"], size=2)):
        if step < 50:
            settle(host)
    assert source.alive.total == 60
    assert source.alive.most <= (4 + 1) + (2 + 2)


def test_batches_in_memory_are_bounded_in_the_evaluation():
    source = Counted()
    for batch in batches.sequential(source, 10):
        del batch
    assert source.alive.total == 100
    assert source.alive.most <= 4 + 1 + 1


@pytest.mark.parametrize(("ahead", "placed"), [(1, 0), (2, 2), (9, 2)])
def test_large_batches_are_not_made_ahead(ahead, placed, monkeypatch):
    source = Counted(5000)
    batch = 500 * 48
    monkeypatch.setattr(_ahead, "BUDGET_BYTES", ahead * batch if placed else batch - 1)
    assert batches._buffer_size(source, 500) == min(max(ahead, 1), 4)
    assert batches.num_placed(source, 500) == placed
    host = batches.iterate(source, batches.BatchOrder(5000, 500, 0), start=0, stop=10)
    assert [batch["image"].shape for batch in host] == [(500, 4, 4, 3)] * 10


def test_decoded_images_are_dropped_where_they_are_not_kept(folder, monkeypatch):
    alive, decode = Alive(), _pixels.decode
    monkeypatch.setattr(_folder._pixels, "decode", lambda *args, **options: alive.add(decode(*args, **options).copy()))
    source = load(folder, 0)
    for _ in range(3):
        for _ in batches.sequential(source, 4):
            pass
    assert alive.total == 3 * 20  # the last batch is filled up
    assert alive.most <= 2 * _stored._NUM_READERS and alive.now <= _stored._NUM_READERS


class Gated(Counted):
    """Reads a batch only once it is let through."""

    def __init__(self, count=1000):
        super().__init__(count)
        self.through = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def take(self, indices):
        self.begun.release()
        assert self.through.acquire(timeout=60)
        return super().take(indices)


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]


def join(threads):
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_a_batch_that_is_placed_does_not_wait_for_the_next():
    """And the time without one is what is counted as waiting."""
    source, waits, events = Gated(), [], []

    class Waiting:
        def __enter__(self):
            waits.append(len(events))
            source.through.release()

        def __exit__(self, *_):
            pass

    host = batches.iterate(source, batches.BatchOrder(1000, 10, 0), start=0, stop=5, num_threads=1)
    stream = batches.prefetch(host, lambda batch: events.append(batch["id"]) or batch, size=2, waiting=Waiting)
    next(stream)
    assert waits == [0] and len(events) == 1  # the one that came was given, though two more may be placed
    source.through.release(2)
    while not {1, 2} <= host._assembled:
        threading.Event().wait(0.001)
    assert len([next(stream), next(stream)]) == 2 and waits == [0] and len(events) == 3
    next(stream)
    assert waits == [0, 3]
    source.through.release(9)
    assert len(list(stream)) == 1


def test_the_end_and_errors_are_not_waited_for():
    host = batches.iterate(Counted(), batches.BatchOrder(1000, 10, 0), start=0, stop=0)
    assert host.is_ready() and list(host) == []

    class Broken(Counted):
        def take(self, indices):
            raise SourceError("a.jpg: broken")

    host = batches.iterate(Broken(), batches.BatchOrder(1000, 10, 0), start=0, stop=9)
    with pytest.raises(SourceError, match=r"a\.jpg: broken"):
        next(batches.prefetch(host, lambda batch: batch))
    join(workers())


def test_closing_ends_a_large_batch_where_it_is():
    """Each of two threads ends within the piece of a batch that it is at, of 20 that there are."""
    source = Gated(20 * 256)
    host = batches.iterate(source, batches.BatchOrder(len(source), len(source), 0), start=0, stop=9)

    def read():
        with contextlib.suppress(CancelledError):
            next(host)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2):
        assert source.begun.acquire(timeout=60)
    threads = workers()
    host.close()
    source.through.release(100)
    join([*threads, reader])
    assert source.alive.total == 2
    assert list(host) == []


def damaged(form, cut=0, end=b""):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(stream, form)
    data = stream.getvalue()
    return (data[:-cut] if cut else data) + end


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_file_that_is_cut_short_is_named_at_the_start(form, folder):
    (folder / "train" / "b" / "cut.jpg").write_bytes(damaged(form, cut=200))
    with pytest.raises(SourceError, match=r"b/cut\.jpg: expected a whole .*truncated.*; restore, replace or remove it"):
        load(folder, 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_bytes_after_the_end_of_an_image_are_nothing(form, folder):
    (folder / "train" / "b" / "x.jpg").write_bytes(damaged(form))
    (folder / "train" / "b" / "y.jpg").write_bytes(damaged(form, end=bytes(7)))
    x, y = load(folder, 0).take(np.array([2 * len(FILES), 2 * len(FILES) + 1]))
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("cache_bytes", [0, GIB])
def test_a_file_that_breaks_later_is_named_and_read_again_once_restored(cache_bytes, folder):
    source, file = load(folder, cache_bytes), folder / "train" / "a" / "plain.jpg"
    before = file.read_bytes()
    file.write_bytes(before[: len(before) // 2] + before[-2:])
    order = batches.BatchOrder(len(source), 18, 0)
    with pytest.raises(SourceError, match=r"a/plain\.jpg: expected a whole .*restore, replace or remove it"):
        next(batches.iterate(source, order, start=0, stop=3))
    join(workers())
    file.write_bytes(before)
    images = next(batches.iterate(source, order, start=0, stop=3))["image"]
    np.testing.assert_array_equal(images, load(folder, 0).take(order.indices(0)))
