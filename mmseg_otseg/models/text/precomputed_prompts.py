"""Text embeddings that were computed elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_otseg.errors import UserError
from mmseg_otseg.structures.class_split import ClassSplit, SplitLike

from .prompts import FrozenPrompts


@MODELS.register_module()
class PrecomputedPrompts(FrozenPrompts):
    """Text embeddings from a ``.npy`` file, one row for each name.

    Args:
        path: A float array of shape (K, N, D), or (K, D) for one prompt per class.
        split: Class names and which are seen. Each must be the name of a row.
        names: Names of the rows, in the file's order; None takes the names of the split.
        clip: Not used; a neck passes it to all kinds of prompts.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If it holds no such array, the names do not fit the rows, or a row cannot be
            brought to unit length (it is zero or not finite).
    """

    def __init__(
        self,
        path: str,
        split: SplitLike,
        names: Sequence[str] | None = None,
        clip: Mapping[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.path = path
        self.names = tuple(ClassSplit.build(split).texts if names is None else names)
        self.set_classes(split)

    def set_classes(self, split: SplitLike) -> None:
        """Replace the vocabulary by other names that have rows in the file.

        Args:
            split: Class names, each the name of a row, in any order; and which are seen.

        Raises:
            UserError: If a name has no row.
        """
        split = ClassSplit.build(split)
        table = _read_embeddings(Path(self.path).expanduser())
        if len(table) != len(self.names):
            raise UserError(
                f"{self.path} holds embeddings of {len(table)} classes, but there are "
                f"{len(self.names)} names: {', '.join(self.names[:5])}, ..."
            )
        unknown = [name for name in split.texts if name not in self.names]
        if unknown:
            raise UserError(
                f"{self.path} has no embeddings of {', '.join(unknown[:5])}: its rows are "
                f"{', '.join(self.names[:10])}{', ...' if len(self.names) > 10 else ''}. Use "
                "TemplatePrompts for other names, or a file with their embeddings."
            )
        rows = table[[self.names.index(name) for name in split.texts]]
        content = hashlib.sha256(rows.tobytes()).hexdigest()
        self._set_table(split, F.normalize(torch.from_numpy(rows), dim=-1), [content])


def _read_embeddings(path: Path) -> np.ndarray:
    """The (K, N, D) float32 array in a .npy file."""
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise UserError(f"cannot read text embeddings from {path}: {error}") from error
    if array.ndim not in (2, 3) or not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"{path} must hold a float array of shape (K, N, D), found {array.dtype} {array.shape}"
        )
    values = array.astype(np.float32).reshape(len(array), -1, array.shape[-1])
    lengths = np.linalg.norm(values, axis=-1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise UserError(f"{path} is damaged: a text embedding is zero, NaN or infinite")
    return values
