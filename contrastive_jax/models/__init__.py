"""Encoders and projection heads."""

from contrastive_jax import extras

extras.check("flax", extra="train", what=__name__)

from contrastive_jax.models.contrastive import ContrastiveModel as ContrastiveModel
from contrastive_jax.models.contrastive import apply as apply
from contrastive_jax.models.contrastive import create as create
from contrastive_jax.models.contrastive import features as features
from contrastive_jax.models.contrastive import functional as functional
from contrastive_jax.models.heads import ProjectionHead as ProjectionHead
from contrastive_jax.models.normalization import BatchNorm as BatchNorm
from contrastive_jax.models.resnet import ResNet as ResNet
