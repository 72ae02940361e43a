"""ONNX Runtime, imported late and on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_session(path: Path, threads: int | None) -> Any:
    """Open a model file.

    Args:
        path: An ``.onnx`` file.
        threads: Threads to run on; None is all cores.

    Raises:
        ValueError: If the file is no model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class of their own
        raise ValueError(f"{path} cannot be read as an ONNX model ({error})") from error
