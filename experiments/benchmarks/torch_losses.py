"""The losses of PyTorch libraries, and the same in plain PyTorch, for comparison: `fn(u, v) -> []`."""

import math
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def create(library: str, name: str, temperature: float) -> Loss:
    """A library's loss of two views, by its name in `contrastive_jax.losses`."""
    if library in ("torch", "torch-cross-entropy"):
        plain = PLAIN[name] if library == "torch" else cross_entropies
        return lambda u, v: plain(functional.normalize(u), functional.normalize(v), temperature)
    if library == "pytorch-metric-learning":
        from pytorch_metric_learning import losses

        return losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=temperature))
    lightly = _lightly_losses()
    return (lightly.DCLLoss if name == "dcl" else lightly.NTXentLoss)(temperature=temperature)


def _lightly_losses() -> Any:
    """lightly's losses, which do not use the torchvision that lightly imports.

    Where the installed torchvision does not fit the installed torch, a stand-in takes its place.
    """
    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):
        for module in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[module]
        for module in ("torchvision", "torchvision.ops", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[module] = mock.MagicMock()
    from lightly import loss

    return loss


def _others(x: Tensor) -> Tensor:
    return x.masked_fill(torch.eye(len(x), dtype=torch.bool), -math.inf)


def simclr(u: Tensor, v: Tensor, t: float) -> Tensor:
    z = torch.cat([u, v])
    logits = _others(z @ z.T / t)
    positive = torch.cat([(u * v).sum(1)] * 2) / t
    return (torch.log(torch.exp(logits).sum(1)) - positive).mean()


def info_nce(u: Tensor, v: Tensor, t: float) -> Tensor:
    exp = torch.exp(u @ v.T / t)
    return (torch.log(exp.sum(1)) / 2 + torch.log(exp.sum(0)) / 2 - (u * v).sum(1) / t).mean()


def cross_entropies(u: Tensor, v: Tensor, t: float) -> Tensor:
    """`info_nce` as open_clip has it: a cross-entropy for each direction."""
    logits, labels = u @ v.T / t, torch.arange(len(u))
    return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2


def dcl(u: Tensor, v: Tensor, t: float) -> Tensor:
    cross, uu, vv = (torch.exp(_others(x / t)) for x in (u @ v.T, u @ u.T, v @ v.T))
    sums = torch.log(cross.sum(1) + uu.sum(1)) + torch.log(cross.sum(0) + vv.sum(1))
    return (sums / 2 - (u * v).sum(1) / t).mean()


def dhel(u: Tensor, v: Tensor, t: float) -> Tensor:
    sums = (torch.log(torch.exp(_others(x @ x.T / t)).sum(1)) for x in (u, v))
    return (sum(sums) - (u * v).sum(1) / t).mean()


def kcl(u: Tensor, v: Tensor, t: float) -> Tensor:
    del t
    m = len(u)
    energy = sum(torch.exp(_others(-2 * (2 - 2 * x @ x.T))).sum() for x in (u, v)) / (m * (m - 1))
    return 16 * energy - 2 * torch.exp(-2 * (u - v).square().sum(1)).mean()


def siglip(u: Tensor, v: Tensor, t: float) -> Tensor:
    del t
    logits = 10 * u @ v.T - 10
    signs = 2 * torch.eye(len(u)) - 1
    return -functional.logsigmoid(signs * logits).sum(1).mean()


PLAIN = {"simclr": simclr, "info_nce": info_nce, "dcl": dcl, "dhel": dhel, "kcl": kcl, "siglip": siglip}
