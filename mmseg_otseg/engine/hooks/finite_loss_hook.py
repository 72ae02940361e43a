"""Ends a training that has nothing left to save."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

ADVICE = (
    "Usual causes: a learning rate that is too high (optim_wrapper.optimizer.lr, or gradients "
    "without optim_wrapper.clip_grad), half precision without a loss scale, or weights that were "
    "damaged before"
)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training when its loss or its weights are no numbers any more, and says so.

    Otherwise it would go on to its end and overwrite good checkpoints with useless ones. Every run
    of mmseg's loops has this hook, see :mod:`mmseg_otseg.engine.loops`. It asks only the total
    loss, which mmengine fetches from the GPU at every iteration anyway.

    With a loss scale some steps may overflow, which the scale then corrects: there, only a row of
    them stops the training.

    Args:
        overflows: How many losses in a row may be NaN or infinite with a loss scale.

    Raises:
        ValueError: The loss is NaN or infinite, or the weights are, as they were loaded or are to
            be saved.
    """

    def __init__(self, overflows: int = 20) -> None:
        self.overflows = overflows
        self._in_a_row = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not isinstance(outputs, dict) or "loss" not in outputs:
            return
        if _is_finite(outputs["loss"]):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        scaled = isinstance(getattr(runner, "optim_wrapper", None), AmpOptimWrapper)
        if scaled and self._in_a_row <= self.overflows:
            return
        names = [name for name, value in outputs.items() if not _is_finite(value)]
        parts = [name for name in names if name != "loss"] or names
        raise ValueError(
            f"training was stopped after iteration {runner.iter + 1}: the loss is NaN or infinite, "
            f"by {', '.join(parts)}. {ADVICE}. {_last_good(runner)}"
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        name = _damaged(checkpoint.get("state_dict", {}))
        if name is not None:
            raise ValueError(
                f"the checkpoint {runner._load_from} holds NaN or infinity in {name}: take one "
                "from before its training failed"
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        name = _damaged(checkpoint["state_dict"])
        if name is not None:
            step = checkpoint["meta"]["iter"]
            raise ValueError(
                f"training was stopped at iteration {step} and nothing saved, as the weights "
                f"{name} hold NaN or infinity. {ADVICE}. {_last_good(runner)}"
            )


def _is_finite(value: Any) -> bool:
    return math.isfinite(value.item() if isinstance(value, Tensor) else value)


def _damaged(state: Mapping[str, Any]) -> str | None:
    """The first tensor that holds NaN or infinity; the mask of a causal tower may."""
    for name, value in state.items():
        checked = isinstance(value, Tensor) and not name.endswith("attn_mask")
        if checked and not value.isfinite().all():
            return name
    return None


def _last_good(runner: Runner) -> str:
    pointer = Path(runner.work_dir, "last_checkpoint")  # written after the checkpoint itself
    if not pointer.is_file():
        return "No checkpoint was written yet."
    last = pointer.read_text(errors="replace").strip()
    return f"{last} is intact: go on from it with --resume, after changing what caused this."
