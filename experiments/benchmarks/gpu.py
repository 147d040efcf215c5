"""The losses on a GPU, value and gradient: time, memory, and what they make of the card, beside plain PyTorch on it.

    pip install -e ".[bench,gpu]"
    pip install torch  # for the comparison; without it those rows are left out
    python -m experiments.benchmarks.gpu [--sizes=8192,65536] [--losses=info_nce,simclr] [--repeats=10]

A time is the median over the repeats after a warm-up, with the least and the greatest. Memory is that of the
temporaries of the compiled program; PyTorch's is the peak of what it allocates beyond the embeddings. The share is that
of the rate at which the card multiplies large matrices of the same kind, measured first, for the products that value
and gradient cannot do without (`experiments/benchmarks/losses.py` counts them). An error is the norm of the difference
of the gradient to that in float64 over its norm, at m = 2,048.
"""

import argparse
import concurrent.futures
import importlib.util
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax import jax_versions, losses
from contrastive_jax.pairwise import shared
from experiments.benchmarks.losses import TEMPERATURE, D, make_embeddings, time_runs

PRODUCTS = {"simclr": 6, "dcl": 6, "dhel": 3, "kcl": 3, "info_nce": 3, "siglip": 3}  # of [m, d] by [d, m]
PRECISIONS = ("highest", "high", "default", "BF16_BF16_F32")
SMALL = 2048  # pairs whose gradient is compared with float64's
MOST_DENSE = 32_768


class Cell(NamedTuple):
    """One measurement of ours."""

    loss: str
    m: int
    implementation: str
    precision: str


def cells(names: Sequence[str], sizes: Sequence[int], precisions: Sequence[str]) -> Iterator[Cell]:
    """What is measured. Where float32 is wanted, three bfloat16 products are a precision of the kernels alone."""
    for name in names:
        for m in sizes:
            for implementation in ("dense", "blockwise", "pallas"):
                for precision in precisions:
                    if implementation == "dense" and m > MOST_DENSE:
                        continue
                    if implementation != "pallas" and precision not in ("highest", "default"):
                        continue
                    if implementation == "pallas" and precision == "default":
                        continue  # the kernels' default is BF16_BF16_F32
                    yield Cell(name, m, implementation, precision)


def make(cell: Cell, dtype: Any = jnp.float32) -> Any:
    """The lowered value and gradient."""
    kwargs: dict[str, Any] = {} if cell.loss in ("kcl", "siglip") else {"temperature": TEMPERATURE}
    if cell.loss == "dhel":
        kwargs["form"] = "sum"

    def mean(u: Any, v: Any) -> Any:
        options = {"implementation": cell.implementation, "precision": cell.precision}
        return getattr(losses, cell.loss)(u, v, **options, **kwargs).mean()

    shape = jax.ShapeDtypeStruct((cell.m, D), dtype)
    return jax.jit(jax.value_and_grad(mean, argnums=(0, 1))).lower(shape, shape)


def measure_rates() -> dict[str, float]:
    """FLOP/s of a product of 8,192 x 8,192 random matrices."""
    kinds = {
        "float32": (jnp.float32, lax.Precision.HIGHEST),
        "TF32": (jnp.float32, lax.Precision.DEFAULT),
        "bfloat16": (jnp.bfloat16, lax.Precision.DEFAULT),
    }
    rates = {}
    for name, (dtype, precision) in kinds.items():
        x = jax.random.normal(jax.random.key(0), (8192, 8192), dtype)
        product = jax.jit(partial(lambda precision, x: jnp.matmul(x, x.T, precision=precision), precision))
        rates[name] = 2 * 8192**3 / min(time_runs(partial(lambda f, x: jax.block_until_ready(f(x)), product, x), 7))
    return rates


def _kind(cell: Cell) -> str:
    """The kind of product that a cell's are compared with."""
    if cell.precision == "highest":
        return "float32"
    return "bfloat16" if cell.implementation == "pallas" else "TF32"


def measure(cell: Cell, compiled: Any, error: float, rates: dict[str, float], repeats: int) -> str:
    """One row of the table."""
    views = [jnp.asarray(x) for x in make_embeddings(cell.m)]
    times = time_runs(lambda: jax.block_until_ready(compiled(*views)), repeats)
    median, megabytes = statistics.median(times), compiled.memory_analysis().temp_size_in_bytes / 1e6
    share = PRODUCTS[cell.loss] * 2 * cell.m**2 * D / median / rates[_kind(cell)]
    return (
        f"| {cell.loss} | {cell.m:,} | {cell.implementation}, {cell.precision} | {_milliseconds(times)} "
        f"| {megabytes:,.0f} | {share:.0%} of {_kind(cell)} | {error:.1e} |"
    )


def _milliseconds(times: Sequence[float]) -> str:
    low, median, high = (1e3 * f(times) for f in (min, statistics.median, max))
    return f"{median:.3g} ({low:.3g} to {high:.3g})"


def find_errors(kinds: Sequence[Cell]) -> dict[Cell, float]:
    """The relative error of the gradient of each kind of cell, at `SMALL` pairs."""
    errors, views = {}, make_embeddings(SMALL)
    for name in {cell.loss for cell in kinds}:
        with jax_versions.enable_x64():
            exact = make(Cell(name, SMALL, "dense", "highest"), jnp.float64).compile()
            expected = np.asarray(exact(*(jnp.asarray(x, jnp.float64) for x in views))[1][0])
        for cell in (cell for cell in kinds if cell.loss == name):
            gradient = np.asarray(make(cell).compile()(*map(jnp.asarray, views))[1][0], np.float64)
            errors[cell] = float(np.linalg.norm(gradient - expected) / np.linalg.norm(expected))
    return errors


def measure_torch(name: str, m: int, rates: dict[str, float], repeats: int) -> Iterator[str]:
    """Rows of the same loss in PyTorch, with float32 products and with TF32 products."""
    import torch

    from experiments.benchmarks import torch_losses

    torch.set_default_device("cuda")
    for kind in ("float32", "TF32"):
        torch.backends.cuda.matmul.allow_tf32 = kind == "TF32"
        try:
            views: Any = [torch.tensor(x, requires_grad=True) for x in make_embeddings(m)]
            fn, before = torch_losses.create("torch", name, TEMPERATURE), torch.cuda.memory_allocated()

            def run(views: Any = views, fn: Any = fn) -> None:
                for view in views:
                    view.grad = None
                fn(*views).backward()
                torch.cuda.synchronize()

            torch.cuda.reset_peak_memory_stats()
            times = time_runs(run, repeats)
        except torch.cuda.OutOfMemoryError:
            yield f"| {name} | {m:,} | PyTorch, {kind} | out of memory | | | |"
            continue
        finally:
            views = None
            torch.cuda.empty_cache()
        share = PRODUCTS[name] * 2 * m**2 * D / statistics.median(times) / rates[kind]
        megabytes = (torch.cuda.max_memory_allocated() - before) / 1e6
        cost = f"{_milliseconds(times)} | {megabytes:,.0f} | {share:.0%} of {kind}"
        yield f"| {name} | {m:,} | PyTorch, {kind} | {cost} | |"


def main(argv: Sequence[str]) -> int:
    """Print the table, a line as each cell is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="8192,65536")
    parser.add_argument("--losses", default="info_nce,simclr")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--block-size", type=int, help="side of a tile, for blockwise (default: the engine's own)")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(argv)
    if jax.default_backend() != "gpu":
        print(f"error: expected a GPU, got {jax.default_backend()}.", file=sys.stderr)
        return 2
    shared.GPU_BLOCK_SIZE = options.block_size or shared.GPU_BLOCK_SIZE
    rates = measure_rates()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}: ", end="")
    print(", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in rates.items()))
    names, sizes = options.losses.split(","), [int(m) for m in options.sizes.split(",")]
    wanted = list(cells(names, sizes, options.precisions.split(",")))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        compiled = list(pool.map(lambda cell: make(cell).compile(), wanted))
    kinds = {cell: cell._replace(m=SMALL) for cell in wanted}
    errors = find_errors(list(dict.fromkeys(kinds.values())))
    print("\n| loss | m | implementation, precision | ms | MB | share of the rate | error of the gradient |")
    print("|---|---:|---|---:|---:|---:|---:|", flush=True)
    for cell, program in zip(wanted, compiled, strict=True):
        print(measure(cell, program, errors[kinds[cell]], rates, options.repeats), flush=True)
    if importlib.util.find_spec("torch"):
        for name in names:
            for m in sizes:
                for row in measure_torch(name, m, rates, options.repeats):
                    print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
