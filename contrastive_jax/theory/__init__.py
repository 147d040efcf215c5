"""What the two papers prove, as functions."""

from contrastive_jax.theory._optima import negative_similarity_optimum as negative_similarity_optimum
from contrastive_jax.theory._optima import negative_variance_bounds as negative_variance_bounds
from contrastive_jax.theory._optima import positive_similarity_bound as positive_similarity_bound
