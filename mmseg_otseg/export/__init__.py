"""Models as files that run without this package, and without Python: ONNX and ``torch.export``."""

from .folder import export_folder

__all__ = ["export_folder"]
