"""The engine: for each anchor, a reduction over all of its negatives."""

from contrastive_jax.pairwise._numerics import accumulation_dtype as accumulation_dtype
from contrastive_jax.pairwise._numerics import normalize as normalize
from contrastive_jax.pairwise._numerics import similarities as similarities
from contrastive_jax.pairwise._reductions import DENSE_ENTRIES as DENSE_ENTRIES
from contrastive_jax.pairwise._reductions import IMPLEMENTATIONS as IMPLEMENTATIONS
from contrastive_jax.pairwise._reductions import check_implementation as check_implementation
from contrastive_jax.pairwise._reductions import choose as choose
from contrastive_jax.pairwise._reductions import logsumexp as logsumexp
from contrastive_jax.pairwise._reductions import total as total
from contrastive_jax.pairwise._tiles import fill_blocks as fill_blocks
