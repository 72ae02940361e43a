"""Checkpoints of other projects, converted."""

from .authors_checkpoint import Conversion, convert_authors_checkpoint, convert_authors_state_dict

__all__ = ["Conversion", "convert_authors_checkpoint", "convert_authors_state_dict"]
