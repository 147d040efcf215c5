"""Losses of lightly 1.6.0 and open_clip 3.3.0 are ours, in value and gradient, as docs/from_pytorch.md says.

`python -m experiments.reliability.pytorch_losses --save=tests/losses/pytorch_values.npz` made the values, with torch.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses

THEIRS = np.load(Path(__file__).parent / "pytorch_values.npz")
QUEUE_ALONE = {"ids": jnp.zeros(16, int), "queue_ids": jnp.ones(24, int)}
OURS = {
    "lightly NTXentLoss": lambda u, v: losses.simclr(u, v, temperature=0.5),
    "lightly NTXentLoss with a memory bank, both ways": lambda u, v: losses.moco(
        u, v, jnp.asarray(THEIRS["queue"]), temperature=0.1, **QUEUE_ALONE
    ),
    "lightly DCLLoss": lambda u, v: losses.dcl(u, v, temperature=0.1),
    "lightly DCLWLoss": lambda u, v: losses.dcl(u, v, temperature=0.1, sigma=0.5),
    "lightly HypersphereLoss": lambda u, v: losses.align_uniform(u, v, t=1.0),
    "open_clip ClipLoss": lambda u, v: losses.info_nce(u, v, temperature=1 / 14),
    "open_clip SigLipLoss": lambda u, v: losses.siglip(u, v, scale=10.0, bias=-10.0),
}


def test_all_are_compared():
    assert {name.rpartition("/")[0] for name in THEIRS.files if "/" in name} == set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_pytorch_values(name):
    u, v = (jnp.asarray(THEIRS[view]) for view in "uv")
    value, gradient = jax.value_and_grad(lambda u: OURS[name](u, v).mean())(u)
    np.testing.assert_allclose(value, THEIRS[f"{name}/value"], rtol=1e-5)
    expected = THEIRS[f"{name}/gradient"]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_solo_learn_takes_the_logarithm_of_the_sum_over_positives():
    """What docs/from_pytorch.md says of `simclr_loss_func` with targets, from its formula; with ids it is `simclr`."""
    z = np.concatenate([THEIRS["u"], THEIRS["v"]])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similar = np.exp(z @ z.T / 0.2) * ~np.eye(32, dtype=bool)
    u, v = (jnp.asarray(THEIRS[view]) for view in "uv")

    def theirs(indexes):
        same = np.tile(indexes, 2)[:, None] == np.tile(indexes, 2)
        return -np.log((similar * same).sum(1) / similar.sum(1)).mean()

    np.testing.assert_allclose(losses.simclr(u, v, temperature=0.2).mean(), theirs(np.arange(16)), rtol=1e-5)
    labels = np.arange(16) % 4
    assert losses.sup_con(u, v, labels, temperature=0.2).mean() > theirs(labels) + 1
