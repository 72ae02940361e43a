"""A run of one linear layer whose validation scores are given in advance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmseg_otseg.engine.run_folder import latest_checkpoint

IMAGES: Any = [dict(inputs=torch.ones(2))]
_numbers = itertools.count()


class ToyModel(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> Any:
        out = self.linear(inputs)
        return dict(loss=out.square().mean()) if mode == "loss" else [out]


class ToldScore(BaseMetric):
    """The score after n iterations is ``scores[n - 1]``."""

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__()
        self.scores = scores
        self.runner: Runner

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        score = self.scores[self.runner.iter - 1]
        return dict(score=score, loss=score)


def toy_runner(work_dir: Path, scores: Sequence[float], hooks: Any = (), **options: Any) -> Runner:
    """A runner with one iteration per score, which saves and validates after each.

    Args:
        work_dir: Where it writes.
        scores: Those of its validations.
        hooks: Its custom hooks.
        options: ``resume`` and ``load_from`` of the runner; the rest is the checkpoint hook's.
    """
    start = {key: options.pop(key) for key in ("resume", "load_from") if key in options}
    if start.get("resume") and "load_from" not in start:
        start["load_from"] = latest_checkpoint(work_dir)
        start["resume"] = start["load_from"] is not None
    checkpoint = dict(type="DurableCheckpointHook", by_epoch=False, interval=1)
    checkpoint.update(dict(save_best="score") | options)
    metric = ToldScore(scores)
    metric.runner = Runner(
        ToyModel(),
        str(work_dir),
        train_dataloader=DataLoader(IMAGES * 4, batch_size=2),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=len(scores), val_interval=1),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        val_dataloader=DataLoader(IMAGES * 2),
        val_cfg=dict(),
        val_evaluator=Evaluator(metric),
        default_hooks=dict(checkpoint=checkpoint),
        custom_hooks=[dict(type="FiniteLossHook"), dict(type="ResumeCheckHook"), *hooks],
        default_scope="mmseg",
        experiment_name=f"toy_{next(_numbers)}",
        cfg=dict(start),
        **start,
    )
    return metric.runner
