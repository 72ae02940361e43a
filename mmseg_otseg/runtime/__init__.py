"""Segments images with an exported model; needs NumPy, Pillow, ONNX Runtime and ``tokenizers``.

Neither torch nor an mmseg stack is imported, nor need they be installed. From the command line::

    python -m mmseg_otseg.runtime FOLDER photos/ --classes "cat, sofa" --out out
"""

from .inferencer import OTSegRuntime
from .vocabulary import Vocabulary

__all__ = ["OTSegRuntime", "Vocabulary"]
