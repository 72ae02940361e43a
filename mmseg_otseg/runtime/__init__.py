"""Segments images with an exported model; needs NumPy, Pillow, ONNX Runtime and ``tokenizers``.

It does not import torch or mmseg, and neither has to be installed. From the command line::

    python -m mmseg_otseg.runtime FOLDER photos/ --classes "cat, sofa" --out out
"""

from .inferencer import OTSegRuntime
from .vocabulary import Vocabulary

__all__ = ["OTSegRuntime", "Vocabulary"]
