"""Whether the losses of lightly and open_clip are ours, in value and gradient, as docs/from_pytorch.md says.

    python -m experiments.reliability.pytorch_losses [--save=PATH]

Needs torch, lightly and open_clip_torch, which no extra installs. Of each loss the value and the gradient by u are
computed in float64, of 16 random pairs; with `--save` theirs are kept for the test, which needs no torch.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import losses

try:
    import lightly
    import open_clip
    import torch
    from lightly.loss import DCLLoss, DCLWLoss, NTXentLoss
    from lightly.loss.hypersphere_loss import HypersphereLoss
    from open_clip.loss import ClipLoss, SigLipLoss
    from torch.nn.functional import normalize
except ImportError as error:
    raise SystemExit(f"error: {error}: pip install torch lightly open_clip_torch") from None

LIMIT = 1e-6  # relative; open_clip takes the scale as float32
PAIRS, QUEUE, DIMENSION = 16, 24, 8
Value = Callable[..., Any]


def draw() -> dict[str, np.ndarray]:
    """u and v [m, d] and a queue [k, d], float64, not normalised."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(n, DIMENSION)) for name, n in (("u", PAIRS), ("v", PAIRS), ("queue", QUEUE))}


def ours(queue: np.ndarray) -> dict[str, Value]:
    """Our losses, by the names of theirs: what the page says that one takes in place of the other."""
    alone = {"ids": jnp.zeros(PAIRS, int), "queue_ids": jnp.ones(len(queue), int)}  # the queue's negatives alone
    return {
        "lightly NTXentLoss": lambda u, v: losses.simclr(u, v, temperature=0.5),
        "lightly NTXentLoss with a memory bank, both ways": lambda u, v: losses.moco(
            u, v, jnp.asarray(queue), temperature=0.1, **alone
        ),
        "lightly DCLLoss": lambda u, v: losses.dcl(u, v, temperature=0.1),
        "lightly DCLWLoss": lambda u, v: losses.dcl(u, v, temperature=0.1, sigma=0.5),
        "lightly HypersphereLoss": lambda u, v: losses.align_uniform(u, v, t=1.0),
        "open_clip ClipLoss": lambda u, v: losses.info_nce(u, v, temperature=1 / 14),
        "open_clip SigLipLoss": lambda u, v: losses.siglip(u, v, scale=10.0, bias=-10.0),
    }


def theirs(queue: np.ndarray) -> dict[str, Value]:
    """Their losses of torch tensors; open_clip's take normalised embeddings."""
    scale, bias = torch.tensor([14.0, 10.0]), torch.tensor(-10.0)
    return {
        "lightly NTXentLoss": NTXentLoss(),
        "lightly NTXentLoss with a memory bank, both ways": lambda u, v: _with_memory(u, v, torch.from_numpy(queue)),
        "lightly DCLLoss": DCLLoss(),
        "lightly DCLWLoss": DCLWLoss(),
        "lightly HypersphereLoss": HypersphereLoss(),
        "open_clip ClipLoss": lambda u, v: ClipLoss()(normalize(u), normalize(v), scale[0]),
        "open_clip SigLipLoss": lambda u, v: SigLipLoss()(normalize(u), normalize(v), scale[1], bias),
    }


def _with_memory(u: torch.Tensor, v: torch.Tensor, queue: torch.Tensor) -> torch.Tensor:
    def one_way(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        loss = NTXentLoss(temperature=0.1, memory_bank_size=tuple(queue.shape))
        loss.memory_bank.bank = normalize(queue)
        return loss(a, b)

    return (one_way(u, v) + one_way(v, u)) / 2


def compute_ours(loss: Value, u: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over the pairs, and its gradient by u."""
    value, gradient = jax.value_and_grad(lambda u: loss(u, jnp.asarray(v)).mean())(jnp.asarray(u))
    return float(value), np.asarray(gradient)


def compute_theirs(loss: Value, u: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray]:
    """The value, and its gradient by u."""
    tensor = torch.tensor(u, requires_grad=True)
    value = loss(tensor, torch.from_numpy(v))
    value.backward()
    return value.item(), tensor.grad.numpy()


def main(arguments: Sequence[str]) -> int:
    """Compare all losses; 0 if every value and gradient agrees."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reliability.pytorch_losses", description=__doc__)
    parser.add_argument("--save", help="an .npz for the inputs, and for their values and gradients")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    kept, worst = draw(), 0.0
    u, v, our_losses = kept["u"], kept["v"], ours(kept["queue"])
    print("| loss | value | differs by | gradient differs by |\n|---|---:|---:|---:|")
    for name, loss in theirs(kept["queue"]).items():
        (value, gradient), (our_value, our_gradient) = compute_theirs(loss, u, v), compute_ours(our_losses[name], u, v)
        differ = abs(our_value / value - 1), float(np.abs(our_gradient - gradient).max() / np.abs(gradient).max())
        print(f"| {name} | {value:.6f} | {differ[0]:.1e} | {differ[1]:.1e} |")
        kept |= {f"{name}/value": np.array(value), f"{name}/gradient": gradient}
        worst = max(worst, *differ)
    print(f"\ntorch {torch.__version__}, lightly {lightly.__version__}, open_clip {open_clip.__version__}")
    if options.save:
        np.savez_compressed(options.save, **kept)
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
