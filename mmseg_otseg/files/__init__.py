"""Reads untrusted files without executing any code in them."""

from .pickle_tree import ForeignObjectError
from .plain_values import PlainValues
from .torch_file import MapLocation, TorchFile

__all__ = ["ForeignObjectError", "MapLocation", "PlainValues", "TorchFile"]
