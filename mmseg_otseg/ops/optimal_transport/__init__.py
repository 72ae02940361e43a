"""Entropic optimal transport by Sinkhorn's iterations, with the gradient of the exact plan."""

from .plan import SinkhornResult, sinkhorn

__all__ = ["SinkhornResult", "sinkhorn"]
