"""Contrastive losses as pure functions: `f(u, v, *, ...) -> [m]`, exact on any number of devices."""

from contrastive_jax.losses._additive import siglip as siglip
from contrastive_jax.losses._additive import spectral as spectral
from contrastive_jax.losses._auxiliary import vrns as vrns
from contrastive_jax.losses._estimators import moco as moco
from contrastive_jax.losses._estimators import sogclr as sogclr
from contrastive_jax.losses._families import independently_additive as independently_additive
from contrastive_jax.losses._families import info_nce_based as info_nce_based
from contrastive_jax.losses._kernel import align_uniform as align_uniform
from contrastive_jax.losses._kernel import kcl as kcl
from contrastive_jax.losses._multi_view import multi_view_dhel as multi_view_dhel
from contrastive_jax.losses._multi_view import multi_view_info_nce as multi_view_info_nce
from contrastive_jax.losses._softmax import dcl as dcl
from contrastive_jax.losses._softmax import dhel as dhel
from contrastive_jax.losses._softmax import info_nce as info_nce
from contrastive_jax.losses._softmax import simclr as simclr
from contrastive_jax.losses._supervised import sup_con as sup_con
