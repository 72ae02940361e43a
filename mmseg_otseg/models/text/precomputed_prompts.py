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
    if not path.is_file():
        raise FileNotFoundError(
            f"text embeddings {str(path)!r} not found: give a .npy file of shape (K, N, D)"
        )
    try:
        # Mapped, not read: what a file claims to hold costs no memory then.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, kind = array.shape, array.dtype
        fits = array.ndim in (2, 3) and np.issubdtype(kind, np.floating) and array.size > 0
        values = np.array(array, dtype=np.float32) if fits else None
    except Exception as error:  # a broken file can make numpy raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read text embeddings from {path}: {reason}") from error
    if values is None:
        raise UserError(f"{path} must hold a float array of shape (K, N, D), found {kind} {shape}")
    values = values.reshape(len(values), -1, values.shape[-1])
    length = np.linalg.norm(values, axis=-1)
    wrong = np.argwhere(~(np.isfinite(length) & (length > 0)))
    if len(wrong):
        row, prompt = wrong[0]
        raise UserError(
            f"the text embeddings in {path} are damaged: row {row}, prompt {prompt} is zero or "
            "holds NaN or infinite values"
        )
    return values
