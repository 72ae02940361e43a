"""The learning rate schedule used in the papers."""

from __future__ import annotations

from typing import Any

from mmengine.optim.scheduler import PolyParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmseg.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupPolyLR(LRSchedulerMixin, PolyParamScheduler):
    """Polynomial decay over the whole run, multiplied by a linear warm-up.

    At iteration i (from 0) of n, with r = ``warmup_ratio`` and w = ``warmup_iters``, the rate of a
    group with base rate b is ::

        (eta_min + (b - eta_min) * (1 - i / n) ** power) * min(1, r + (1 - r) * i / w)

    The authors of ZegCLIP, ZegOT and OTSeg trained with this schedule. mmengine's ``LinearLR``
    followed by ``PolyLR`` gives rates that are 7% higher (20k iterations), because the decay starts
    only after the warm-up. Running both at the same time feeds ``eta_min`` into the warm-up and
    gives up to 3.3 times the rate.

    Args:
        optimizer: The optimizer (wrapper) to schedule.
        warmup_iters: Iterations of the warm-up. Default: 1500.
        warmup_ratio: Factor in the first iteration. Default: 1e-6.
        kwargs: ``eta_min``, ``power``, ``begin``, ``end`` and ``by_epoch``. If ``end`` is
            missing, the Runner uses the length of the run.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        warmup_iters: int = 1500,
        warmup_ratio: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        self.warmup_iters = warmup_iters
        self.warmup_ratio = warmup_ratio
        super().__init__(optimizer, **kwargs)

    def _get_value(self) -> list[float]:
        decay = (1 - self.last_step / (self.end - self.begin)) ** self.power
        warmup = 1.0
        if self.last_step < self.warmup_iters:
            progress = self.last_step / self.warmup_iters
            warmup = self.warmup_ratio + (1 - self.warmup_ratio) * progress
        return [
            warmup * (self.eta_min + (base - self.eta_min) * decay) for base in self.base_values
        ]
