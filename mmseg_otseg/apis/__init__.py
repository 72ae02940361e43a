"""Tools for use outside a training run: inference, other classes, converted checkpoints."""

from .authors_checkpoint import Conversion, convert_authors_checkpoint, convert_authors_state_dict
from .inferencer import OTSegInferencer
from .inspection import Inspection
from .vocabulary import set_classes, with_classes

__all__ = [
    "Conversion",
    "Inspection",
    "OTSegInferencer",
    "convert_authors_checkpoint",
    "convert_authors_state_dict",
    "set_classes",
    "with_classes",
]
