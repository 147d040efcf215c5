"""What embeddings look like on the sphere."""

from contrastive_jax.metrics._geometry import alignment as alignment
from contrastive_jax.metrics._geometry import effective_rank as effective_rank
from contrastive_jax.metrics._geometry import rank as rank
from contrastive_jax.metrics._geometry import uniformity as uniformity
from contrastive_jax.metrics._geometry import wasserstein_uniformity as wasserstein_uniformity
from contrastive_jax.metrics._negatives import NegativeMoments as NegativeMoments
from contrastive_jax.metrics._negatives import merge_negative_moments as merge_negative_moments
from contrastive_jax.metrics._negatives import negative_moments as negative_moments
from contrastive_jax.metrics._similarity import PairSimilarities as PairSimilarities
from contrastive_jax.metrics._similarity import SimilarityDistribution as SimilarityDistribution
from contrastive_jax.metrics._similarity import merge as merge
from contrastive_jax.metrics._similarity import merge_devices as merge_devices
from contrastive_jax.metrics._similarity import select as select
from contrastive_jax.metrics._similarity import similarity_distribution as similarity_distribution
from contrastive_jax.metrics._similarity import similarity_edges as similarity_edges
from contrastive_jax.metrics._similarity import to_host as to_host
