"""``compile`` in a config: the losses are one graph, which fits every step of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mmseg_otseg.engine import ZeroShotRunner
from tests.helpers.small_configs import small

COUNTER = CompileCounterWithBackend("eager")
torch._dynamo.register_backend(COUNTER, name="counter")


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_run_compiles_once(data_folder: Path, tmp_path: Path) -> None:
    weights: list[dict] = []
    for options in ({}, dict(compile=dict(backend="counter", fullgraph=True))):
        torch._dynamo.reset()
        cfg = small("otseg/voc_512.py", data_folder, tmp_path, iters=4)
        cfg.model.backbone.update(drop_path_rate=0.0)
        cfg.model.backbone.visual_prompts.dropout = cfg.model.decode_head.dropout = 0.0
        cfg.merge_from_dict(options)
        cfg.experiment_name = f"compiled_{len(weights)}"
        runner = ZeroShotRunner.from_cfg(cfg)
        runner.train()
        weights.append(runner.model.state_dict())
    assert COUNTER.frame_count == 1
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
