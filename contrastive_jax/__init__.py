"""Contrastive learning seen through the similarities of embeddings, in JAX."""

__version__ = "0.1.0"
