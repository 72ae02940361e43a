"""Stops a training run that has diverged."""

from __future__ import annotations

import math
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
    "already damaged. Fix the cause, then continue with --resume from the last checkpoint, if "
    "there is one; it is intact."
)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training with an error when the loss or the weights become NaN or infinite.

    Otherwise training would continue and overwrite good checkpoints with useless ones. It checks
    only the total loss, which mmengine copies from the GPU in every iteration anyway, and the
    weights before they are saved.

    With a loss scale, a step may overflow, after which the scale is reduced. Training therefore
    stops only after several such steps in a row.

    Args:
        overflows: Number of successive NaN or infinite losses to tolerate with a loss scale.

    Raises:
        UserError: If the total loss or the weights to be saved hold NaN or infinity.
    """

    def __init__(self, overflows: int = 20) -> None:
        self.overflows = overflows
        self._in_a_row = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not outputs or "loss" not in outputs or math.isfinite(outputs["loss"]):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        scaled = isinstance(runner.optim_wrapper, AmpOptimWrapper)
        if not scaled or self._in_a_row > self.overflows:
            values = ", ".join(f"{name} {float(value):.3g}" for name, value in outputs.items())
            raise UserError(
                f"training was stopped after iteration {runner.iter + 1}, because its loss is NaN "
                f"or infinite: {values}. {ADVICE}"
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for name, value in checkpoint["state_dict"].items():
            # The causal mask of a text tower is infinite on purpose.
            checked = isinstance(value, Tensor) and not name.endswith("attn_mask")
            if checked and not value.isfinite().all():
                raise UserError(
                    f"training was stopped at iteration {checkpoint['meta']['iter']} and nothing "
                    f"was saved, because the weights {name} hold NaN or infinity. {ADVICE}"
                )
