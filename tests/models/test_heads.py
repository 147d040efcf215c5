"""The projection head against its formula."""

import jax
import numpy as np
from flax import nnx

from contrastive_jax.models import ProjectionHead


def test_head_is_linear_batch_norm_relu_linear():
    head = ProjectionHead(6, 8, 4, rngs=nnx.Rngs(0))
    features = jax.random.normal(jax.random.key(0), (32, 6))
    hidden = np.asarray(features, np.float64) @ np.asarray(head.hidden.kernel[...], np.float64)
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    expected = np.maximum(hidden, 0) @ np.asarray(head.out.kernel[...], np.float64)
    np.testing.assert_allclose(head(features, train=True), expected, atol=1e-5)


def test_head_has_no_bias_before_the_normalisation():
    head = ProjectionHead(512, 512, rngs=nnx.Rngs(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(head, nnx.Param)))
    assert count == 512 * 512 + 2 * 512 + 512 * 128 + 128
    np.testing.assert_allclose(head.hidden.kernel[...].std(), 512**-0.5, rtol=0.01)
