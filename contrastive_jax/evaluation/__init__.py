"""How good features are, and how embeddings lie on the sphere."""

from contrastive_jax import extras

extras.check("flax", "optax", extra="train", what=__name__)

from contrastive_jax.evaluation._features import extract as extract
from contrastive_jax.evaluation._features import raw_pixels as raw_pixels
from contrastive_jax.evaluation._geometry import Geometry as Geometry
from contrastive_jax.evaluation._geometry import geometry as geometry
from contrastive_jax.evaluation._knn import knn as knn
from contrastive_jax.evaluation._linear_probe import FewLabelResult as FewLabelResult
from contrastive_jax.evaluation._linear_probe import ProbeResult as ProbeResult
from contrastive_jax.evaluation._linear_probe import few_label_probe as few_label_probe
from contrastive_jax.evaluation._linear_probe import linear_probe as linear_probe
from contrastive_jax.evaluation._report import Scores as Scores
from contrastive_jax.evaluation._report import Settings as Settings
from contrastive_jax.evaluation._report import Similarities as Similarities
from contrastive_jax.evaluation._report import format_geometry as format_geometry
from contrastive_jax.evaluation._report import format_scores as format_scores
from contrastive_jax.evaluation._report import format_similarities as format_similarities
from contrastive_jax.evaluation._report import score as score
