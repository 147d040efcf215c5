"""Encoders and projection heads."""

from contrastive_jax.models._contrastive import ContrastiveModel as ContrastiveModel
from contrastive_jax.models._contrastive import apply as apply
from contrastive_jax.models._contrastive import create as create
from contrastive_jax.models._contrastive import features as features
from contrastive_jax.models._contrastive import functional as functional
from contrastive_jax.models._heads import ProjectionHead as ProjectionHead
from contrastive_jax.models._normalization import BatchNorm as BatchNorm
from contrastive_jax.models._resnet import VARIANTS as VARIANTS
from contrastive_jax.models._resnet import ResNet as ResNet
