"""Encoders and projection heads, and any module of Flax as a pure function."""

from contrastive_jax import extras

extras.check("flax", extra="train", what=__name__)

from contrastive_jax.models._batch import batch_mean as batch_mean
from contrastive_jax.models._contrastive import ContrastiveModel as ContrastiveModel
from contrastive_jax.models._convolution import convolve as convolve
from contrastive_jax.models._create import ENCODERS as ENCODERS
from contrastive_jax.models._create import HEADS as HEADS
from contrastive_jax.models._create import create as create
from contrastive_jax.models._create import num_features as num_features
from contrastive_jax.models._functional import apply as apply
from contrastive_jax.models._functional import features as features
from contrastive_jax.models._functional import functional as functional
from contrastive_jax.models._functional import merge as merge
from contrastive_jax.models._heads import ProjectionHead as ProjectionHead
from contrastive_jax.models._mlp import MLP as MLP
from contrastive_jax.models._normalization import BatchNorm as BatchNorm
from contrastive_jax.models._resnet import ResNet as ResNet
from contrastive_jax.models._torchvision import describe_difference as describe_difference
from contrastive_jax.models._torchvision import load_torchvision as load_torchvision
from contrastive_jax.models._torchvision import to_torchvision as to_torchvision
from contrastive_jax.models._vit import VisionTransformer as VisionTransformer
