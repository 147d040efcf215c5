"""Contrastive losses as pure functions: `f(u, v, *, ...) -> [m]`, exact on any number of devices."""

from contrastive_jax.losses._auxiliary import vrns as vrns
from contrastive_jax.losses._softmax import dcl as dcl
from contrastive_jax.losses._softmax import dhel as dhel
from contrastive_jax.losses._softmax import info_nce as info_nce
from contrastive_jax.losses._softmax import simclr as simclr
