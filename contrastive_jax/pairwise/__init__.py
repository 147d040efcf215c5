"""The engine: for each anchor, a reduction over all of its negatives."""

from contrastive_jax.pairwise._moments import Moments as Moments
from contrastive_jax.pairwise._moments import moments as moments
from contrastive_jax.pairwise._numerics import finite_exp as finite_exp
from contrastive_jax.pairwise._numerics import normalize as normalize
from contrastive_jax.pairwise._numerics import of_pairs as of_pairs
from contrastive_jax.pairwise._numerics import softplus as softplus
from contrastive_jax.pairwise._products import PRECISIONS as PRECISIONS
from contrastive_jax.pairwise._products import Precision as Precision
from contrastive_jax.pairwise._products import similarities as similarities
from contrastive_jax.pairwise._reductions import logsumexp as logsumexp
from contrastive_jax.pairwise._reductions import logsumexp_both_ways as logsumexp_both_ways
from contrastive_jax.pairwise._reductions import logsumexp_over_views as logsumexp_over_views
from contrastive_jax.pairwise._totals import total as total
from contrastive_jax.pairwise._totals import totals as totals
from contrastive_jax.pairwise.shared import IMPLEMENTATIONS as IMPLEMENTATIONS
