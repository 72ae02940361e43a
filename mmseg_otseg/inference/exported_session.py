"""A model file in ONNX Runtime, imported late and on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmseg_otseg.errors import UserError


class Session:
    """A model file of an exported folder.

    ONNX Runtime itself refuses files whose weights lie outside of the folder.

    Args:
        path: An ``.onnx`` file.
        inputs: Names of the inputs that it must have, and no others.
        output: Name of the output to compute.
        threads: Threads to run on; None is all cores.

    Raises:
        UserError: If the file is not a model, or is another one.
    """

    def __init__(self, path: Path, inputs: Sequence[str], output: str, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it prints errors that it raises too
        options.intra_op_num_threads = threads or 0
        self.path, self.output = path, output
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no class of their own
            raise UserError(f"{path} cannot be read as an ONNX model ({error})") from error
        found = [value.name for value in self._session.get_inputs()]
        outputs = [value.name for value in self._session.get_outputs()]
        if sorted(found) != sorted(inputs) or output not in outputs:
            raise UserError(
                f"{path} computes {', '.join(outputs)} from {', '.join(found)}, but should "
                f"compute {output} from {', '.join(inputs)}: it is another model. Export it again."
            )

    def __call__(self, **inputs: np.ndarray) -> np.ndarray:
        """Run the model.

        Raises:
            UserError: If it does not take these inputs, or its values are not finite.
        """
        try:
            values: np.ndarray = self._session.run([self.output], inputs)[0]
        except Exception as error:
            raise UserError(f"{self.path} cannot be run ({error})") from error
        if not np.isfinite(values).all():
            raise UserError(f"the values of {self.path} are not finite: it may be damaged")
        return values
