"""Alignment of text and local features."""

from .dlfa_neck import DLFANeck
from .relationship_descriptor import RelationshipDescriptor

__all__ = ["DLFANeck", "RelationshipDescriptor"]
