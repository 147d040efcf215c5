"""Time and memory of the losses, forward and backward, beside other libraries; each value is checked first.

    pip install -e ".[bench]"
    pip install torch==2.13.0 lightly pytorch-metric-learning  # the peers; one that is missing is an error in its cells
    python -m experiments.benchmarks.losses [--sizes=1024,4096] [--losses=simclr,dhel] [--repeats=5]

Each cell of the table is measured in its own process. The time is the median over the repeats after a warm-up, with the
least and the greatest; the memory is the peak growth of the process. The floor is the time of the matrix products that
the value and the gradient cannot do without, measured in the same process on the same threads: one for the
similarities and one for each side of the gradient, and half of that where anchors are compared with themselves, because
that matrix is symmetric. Computing tiles again in the backward pass takes another product, which the floor leaves out.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[], tuple[float, Any]]  # one forward and backward pass -> (value, gradient of u)
D = 128
TEMPERATURE = 0.2
TOLERANCE = 2e-4


def make_embeddings(m: int) -> list[np.ndarray]:
    """Two views, float32 [m, d] each."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=(m, D))
    return [(center + rng.normal(size=(m, D))).astype(np.float32) for _ in range(2)]


LOSSES = ("simclr", "info_nce", "dcl", "dhel", "kcl", "siglip")
OURS = ("dense", "blockwise")
PEERS = {
    "simclr": ("optax", "lightly", "pytorch-metric-learning", "torch"),
    "dcl": ("lightly", "torch"),
    "dhel": ("torch",),
    "kcl": ("torch",),
    "info_nce": ("torch", "torch-cross-entropy"),
    "siglip": ("torch",),
}


def make_ours(name: str, implementation: str, u: np.ndarray, v: np.ndarray) -> Run:
    """A pass of one of our losses."""
    import jax

    from contrastive_jax import losses

    kwargs: dict[str, Any] = {} if name in ("kcl", "siglip") else {"temperature": TEMPERATURE}
    if name == "dhel":
        kwargs["form"] = "sum"

    def mean(u: Any, v: Any) -> Any:
        return getattr(losses, name)(u, v, implementation=implementation, **kwargs).mean()

    return _jit(jax.value_and_grad(mean, argnums=(0, 1)), u, v)


def _jit(fn: Callable[..., Any], u: np.ndarray, v: np.ndarray) -> Run:
    import jax

    u, v, step = jax.device_put(u), jax.device_put(v), jax.jit(fn)

    def run() -> tuple[float, Any]:
        value, (grad, _) = jax.block_until_ready(step(u, v))
        return float(value), grad

    return run


def make_peer(library: str, name: str, u: np.ndarray, v: np.ndarray) -> Run:
    """A pass of another library's loss."""
    if library == "optax":
        import jax
        import jax.numpy as jnp
        import optax

        labels = jnp.tile(jnp.arange(len(u)), 2)

        def mean(u: Any, v: Any) -> Any:
            return optax.losses.ntxent(jnp.concatenate([u, v]), labels, temperature=TEMPERATURE)

        return _jit(jax.value_and_grad(mean, argnums=(0, 1)), u, v)
    import torch

    from experiments.benchmarks import torch_losses

    fn = torch_losses.create(library, name, TEMPERATURE)
    views: Any = [torch.tensor(x, requires_grad=True) for x in (u, v)]

    def run() -> tuple[float, np.ndarray]:
        for view in views:
            view.grad = None
        value = fn(*views)
        value.backward()
        return value.item(), views[0].grad.numpy()

    return run


def _make(name: str, library: str, u: np.ndarray, v: np.ndarray) -> Run:
    return make_ours(name, library, u, v) if library in OURS else make_peer(library, name, u, v)


def measure_floor(name: str, m: int) -> float:
    """Seconds of the matrix products alone, in JAX, in tiles that fit the cache."""
    import jax
    import jax.numpy as jnp

    size = min(m, 2048)
    x = jnp.asarray(make_embeddings(size)[0])
    step = jax.jit(lambda x: jnp.matmul(x, x.T, precision="highest"))
    times = time_runs(lambda: jax.block_until_ready(step(x)), 7)
    product = statistics.median(times) * (m / size) ** 2
    # In products of [m, d] by [d, m]: SimCLR's and DCL's symmetric matrix is four of them, DHEL's and KCL's are two.
    return {"simclr": 6, "dcl": 6, "dhel": 3, "kcl": 3, "info_nce": 3, "siglip": 3}[name] * product


def time_runs(run: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of some runs, after one that is not timed."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def measure_cell(name: str, library: str, m: int, repeats: int) -> dict[str, Any]:
    """One measurement, in this process."""
    u, v = make_embeddings(m)
    expected, gradient = make_ours(name, "blockwise", u[:512], v[:512])()
    small = (
        make_ours(name, library, u[:512], v[:512]) if library in OURS else make_peer(library, name, u[:512], v[:512])
    )
    value, grad = small()
    error = max(abs(value - expected) / abs(expected), np.abs(grad - gradient).max() / np.abs(gradient).max())
    if not error < TOLERANCE:
        return {"failed": f"another value: {error:.1e}"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = time_runs(_make(name, library, u, v), repeats)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    seconds, lower = statistics.median(times), measure_floor(name, m)
    return {
        "seconds": seconds,
        "range": (min(times), max(times)),
        "megabytes": memory / 1e6,
        "floors": seconds / lower,
    }


def measure(name: str, library: str, m: int, repeats: int, limit: int) -> dict[str, Any]:
    """One measurement in its own process; `failed` says why there is none."""
    command = [sys.executable, "-m", "experiments.benchmarks.losses", f"--cell={name},{library},{m},{repeats}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {limit} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return {"failed": "out of memory" if done.returncode < 0 or "alloc" in last.lower() else last[:60]}
    return json.loads(done.stdout.splitlines()[-1])


def format_row(name: str, library: str, m: int, found: dict[str, Any]) -> str:
    """One line of the table."""
    if "failed" in found:
        return f"| {name} | {m:,} | {library} | {found['failed']} | | |"
    low, high = found["range"]
    return (
        f"| {name} | {m:,} | {library} | {found['seconds']:.3g} ({low:.3g} to {high:.3g}) "
        f"| {found['megabytes']:.0f} | {found['floors']:.2f} |"
    )


def main() -> int:
    """Print the table, a line as each cell is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1024,4096,8192,16384")
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--libraries", default="", help="only these of dense, blockwise and the peers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=120, help="seconds for each cell")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        name, library, m, repeats = options.cell.split(",")
        print(json.dumps(measure_cell(name, library, int(m), int(repeats))))
        return 0
    only = set(filter(None, options.libraries.split(",")))
    print("| loss | m | implementation | seconds (least to greatest) | MB | times the floor |")
    print("|---|---:|---|---:|---:|---:|", flush=True)
    for name in options.losses.split(","):
        for m in map(int, options.sizes.split(",")):
            for library in (*OURS, *PEERS[name]):
                if not only or library in only:
                    found = measure(name, library, m, options.repeats, options.limit)
                    print(format_row(name, library, m, found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
