"""Stops a training run that has diverged."""

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

from mmseg_otseg.errors import UserError

ADVICE = (
    "Usual causes: a learning rate that is too high (optim_wrapper.optimizer.lr, or gradients "
    "without optim_wrapper.clip_grad), half precision without a loss scale, or weights that were "
    "already damaged"
)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training with an error when the loss or the weights become NaN or infinite.

    Otherwise training would continue and overwrite good checkpoints with useless ones. Every run
    with mmseg's loops has this hook; see :mod:`mmseg_otseg.engine.loops`. It checks only the total
    loss, which mmengine copies from the GPU in every iteration anyway.

    With a loss scale, a step may overflow, after which the scale is reduced. Training therefore
    stops only after several such steps in a row.

    Args:
        overflows: Number of successive NaN or infinite losses to tolerate with a loss scale.

    Raises:
        UserError: If the total loss, the loaded weights or the weights to be saved hold NaN or
            infinity.
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
        raise UserError(
            f"training was stopped after iteration {runner.iter + 1}: the loss is NaN or infinite "
            f"because of {', '.join(parts)}. {ADVICE}. {_last_good(runner)}"
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        name = _damaged(checkpoint.get("state_dict", {}))
        if name is not None:
            raise UserError(
                f"the checkpoint {runner._load_from} holds NaN or infinity in {name}: use one "
                "from before its training failed"
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        name = _damaged(checkpoint["state_dict"])
        if name is not None:
            step = checkpoint["meta"]["iter"]
            raise UserError(
                f"training was stopped at iteration {step} and nothing was saved, because the "
                f"weights {name} hold NaN or infinity. {ADVICE}. {_last_good(runner)}"
            )


def _is_finite(value: Any) -> bool:
    return math.isfinite(value.item() if isinstance(value, Tensor) else value)


def _damaged(state: Mapping[str, Any]) -> str | None:
    """Name of the first tensor with NaN or infinity; a causal attention mask may hold them."""
    for name, value in state.items():
        checked = isinstance(value, Tensor) and not name.endswith("attn_mask")
        if checked and not value.isfinite().all():
            return name
    return None


def _last_good(runner: Runner) -> str:
    pointer = Path(runner.work_dir, "last_checkpoint")  # written after the checkpoint itself
    if not pointer.is_file():
        return "No checkpoint has been written yet."
    last = pointer.read_text(errors="replace").strip()
    return f"{last} is intact: fix the cause, then continue from it with --resume."
