"""Images per second from a folder of JPEGs to batches: decoded, resized, cropped; beside torchvision's ImageFolder.

    pip install -e ".[bench]"
    pip install torch==2.13.0 torchvision==0.28.0  # for the comparison; without them only our rows appear
    python -m experiments.benchmarks.feeding [--images=1024] [--repeats=4] [--cores=1,2] [--folder=PATH]

Both decode each image, make its shorter side 256 pixels and crop the centre, and give batches of 256 as uint8
[256, 256, 256, 3], in a new order every epoch; nothing is kept. torchvision's DataLoader has no worker, one, and one
for each core; workers last from epoch to epoch. The photographs are made here (photographs.py), always the same.

Both resample with Pillow's bilinear filter. torchvision resizes the whole image and cuts the centre out at whole
pixels; we resize the centre alone, so that its content lies up to 0.7 pixels elsewhere. Square images are the same.

Every row is a process of its own, held to so many cores. The processes take turns epoch by epoch. The first epoch of
each is for memory alone: what the process and its workers take at most beyond what they took before the first batch
(shared pages are divided among those that share them). The last lines are of a step that takes 1.25 times as
long as its batch takes us to decode, the share of the time in which it had no data; and of the pixels.
"""

import argparse
import contextlib
import importlib.util
import itertools
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import psutil
from PIL import Image

from experiments.benchmarks import photographs

SIDE, BATCH = 256, 256
_STEP = 1.25  # times what decoding takes


Watch = contextlib.AbstractContextManager[list[int]]
MakeEpoch = Callable[[], Iterator[np.ndarray]]


class Epoch(NamedTuple):
    """What one epoch took."""

    images: int
    seconds: float
    cpu_seconds: float  # of the process and its workers
    peak_bytes: int


class Kind(NamedTuple):
    """A row of the table."""

    name: str
    cores: int
    workers: int | None  # of torchvision's DataLoader; None for ours


def open_ours(root: Path) -> MakeEpoch:
    """A function that starts an epoch, read as training reads it."""
    from contrastive_jax.data import batches, sources

    source = sources.load(f"folder:{root}", split="train", stored_size=SIDE, cache_bytes=0)
    order = batches.BatchOrder(len(source), min(BATCH, len(source)), 0)
    starts = itertools.count(0, order.steps_per_epoch)

    def read() -> Iterator[np.ndarray]:
        start = next(starts)
        for batch in batches.iterate(source, order, start=start, stop=start + order.steps_per_epoch):
            yield batch["image"]

    return read


def open_torchvision(root: Path, workers: int) -> MakeEpoch:
    """The same of torchvision. Images stay [h, w, c]: bringing the channels first would cost it more."""
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    steps = [transforms.Resize(SIDE), transforms.CenterCrop(SIDE), _to_tensor]
    data = datasets.ImageFolder(str(root / "train"), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(
        data,
        min(BATCH, len(data)),
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: (images.numpy() for images, _ in loader)


def _to_tensor(image: Image.Image) -> Any:
    import torch

    return torch.from_numpy(np.array(image))


def serve(kind: Kind, root: Path, connection: Connection) -> None:
    """Hold this process to its cores, and measure an epoch whenever asked for one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: kind.cores])
    make_epoch = open_ours(root) if kind.workers is None else open_torchvision(root, kind.workers)
    before = _memory()
    connection.send(measure_epoch(make_epoch(), _watch_memory(), before))
    while connection.recv():
        connection.send(measure_epoch(make_epoch(), contextlib.nullcontext([before]), before))


def measure_epoch(images: Iterator[np.ndarray], watch: Watch, before: int) -> Epoch:
    """Time an epoch; memory is counted from `before`, in bytes."""
    start, cpu, count = time.perf_counter(), _cpu_seconds(), 0
    with watch as seen:
        for batch in images:
            assert batch.dtype == np.uint8 and batch.shape[1:] == (SIDE, SIDE, 3)
            count += len(batch)
        seconds = time.perf_counter() - start
    return Epoch(count, seconds, _cpu_seconds() - cpu, max(seen) - before)


@contextlib.contextmanager
def _watch_memory() -> Iterator[list[int]]:
    """Bytes taken, looked up twenty times a second, which costs time."""
    seen, done = [_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.append(_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _tree() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def _memory() -> int:
    total = 0
    for process in _tree():
        with contextlib.suppress(psutil.Error):
            total += getattr(process.memory_full_info(), "pss", None) or process.memory_info().rss
    return total


def _cpu_seconds() -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _tree())


def has_torchvision() -> bool:
    """Whether PyTorch and torchvision are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "torchvision"))


def list_kinds(cores: Sequence[int]) -> list[Kind]:
    """The rows: ours, and torchvision with every number of workers up to the number of cores."""
    kinds = []
    for count in cores:
        kinds.append(Kind("contrastive_jax", count, None))
        if has_torchvision():
            kinds += [Kind(f"torchvision, {workers} workers", count, workers) for workers in sorted({0, 1, count})]
    return kinds


def measure(kinds: Sequence[Kind], root: Path, repeats: int) -> list[list[Epoch]]:
    """Epochs of every kind, in turn; the first is that of memory."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in kinds]
    processes = [
        context.Process(target=serve, args=(kind, root, end[1])) for kind, end in zip(kinds, ends, strict=True)
    ]
    watched = []
    for process, (own, _) in zip(processes, ends, strict=True):
        process.start()
        watched.append(own.recv())
    rounds = [[_ask(end[0]) for end in ends] for _ in range(repeats)]
    for (own, _), process in zip(ends, processes, strict=True):
        own.send(False)
        process.join()
    return [list(column) for column in zip(watched, *rounds, strict=True)]


def _ask(connection: Connection) -> Epoch:
    connection.send(True)
    return connection.recv()


def format_row(kind: Kind, epochs: Sequence[Epoch], ours: Sequence[Epoch]) -> str:
    """A row of the table; the ratio is of neighbouring epochs, ours to theirs."""
    (watched, *epochs), ours = epochs, ours[1:]
    speeds = [epoch.images / epoch.seconds for epoch in epochs]
    ratios = [(a.images / a.seconds) / speed for a, speed in zip(ours, speeds, strict=True)]
    cpu = statistics.median(epoch.cpu_seconds / epoch.images for epoch in epochs)
    cells = [
        f"{statistics.median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f})",
        f"{statistics.median(speeds) / kind.cores:.0f}",
        f"{1000 * cpu:.2f}",
        f"{watched.peak_bytes / 2**20:.0f}",
        "" if kind.workers is None else f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
    ]
    return f"| {kind.cores} | {kind.name} | {' | '.join(cells)} |"


def measure_waiting(root: Path, epochs: int = 3) -> float:
    """The share of the time for which a step has no data that takes 1.25 times as long as decoding its batch.

    How long decoding takes is measured first, on all cores.
    """
    from contrastive_jax.data import batches, sources

    source = sources.load(f"folder:{root}", split="train", stored_size=SIDE, cache_bytes=0)
    order = batches.BatchOrder(len(source), min(BATCH, len(source)), 0)
    waited, begun = 0.0, math.nan

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        nonlocal waited
        start = time.perf_counter()
        yield
        waited += 0.0 if math.isnan(begun) else time.perf_counter() - start

    start = time.perf_counter()
    for batch in batches.iterate(source, order, start=0, stop=order.steps_per_epoch):
        del batch
    seconds = (time.perf_counter() - start) / order.steps_per_epoch
    stream = batches.iterate(source, order, start=0, stop=1 + epochs * order.steps_per_epoch)
    for _ in batches.prefetch(stream, lambda batch: batch, waiting=waiting):
        time.sleep(_STEP * seconds)  # as for a step on an accelerator
        begun = time.perf_counter() if math.isnan(begun) else begun
    return waited / (time.perf_counter() - begun)


def compare_pixels(root: Path) -> float | None:
    """The mean difference between our pixels and torchvision's, in grey levels; None where it is not installed."""
    if not has_torchvision():
        return None
    from torchvision import transforms

    from contrastive_jax.data import sources

    ours = sources.load(f"folder:{root}", split="test", stored_size=SIDE)
    crop = transforms.Compose([transforms.Resize(SIDE), transforms.CenterCrop(SIDE)])
    paths = sorted((root / "test").rglob("*.jpg"))
    theirs = np.stack([np.array(crop(Image.open(path).convert("RGB"))) for path in paths])
    return float(np.abs(ours.take(np.arange(len(paths))).astype(int) - theirs).mean())


def print_table(root: Path, cores: Sequence[int], repeats: int) -> None:
    """Measure, and print what was found."""
    sizes = [path.stat().st_size for path in (root / "train").rglob("*.jpg")]
    about = f"{len(sizes)} photographs of {statistics.mean(sizes) / 1000:.0f} kB on average, Pillow {PIL.__version__}"
    print(f"{about}, load {psutil.getloadavg()[0]:.1f} before the first epoch\n")
    print("| cores | loader | images/s | by core | CPU ms an image | MB | ours to theirs |")
    print("|---:|---|---:|---:|---:|---:|---:|", flush=True)
    kinds = list_kinds(cores)
    found = measure(kinds, root, repeats)
    ours = {kind.cores: epochs for kind, epochs in zip(kinds, found, strict=True) if kind.workers is None}
    for kind, epochs in zip(kinds, found, strict=True):
        print(format_row(kind, epochs, ours[kind.cores]))
    waited = measure_waiting(root)
    print(f"\nA step that takes {_STEP} times as long as its batch waits {waited:.1%} of the time.")
    if (difference := compare_pixels(root)) is not None:
        print(f"Our pixels differ from torchvision's by {difference:.2f} grey levels on average.")


def main(argv: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--images", type=int, default=1024, help="photographs (%(default)s)")
    parser.add_argument("--repeats", type=int, default=4, help="epochs of each kind (%(default)s)")
    parser.add_argument("--cores", default=f"1,{available}" if available > 1 else "1", help="(%(default)s)")
    parser.add_argument("--folder", help="where to keep the photographs; by default they are removed")
    options = parser.parse_args(argv)
    kept = contextlib.nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory()
    with kept as folder:
        root = Path(folder)
        photographs.make_folder(root, options.images)
        print_table(root, [int(count) for count in options.cores.split(",")], options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
