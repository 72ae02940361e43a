"""``compile`` in a config: the losses are one graph, which fits every step of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mmseg_otseg.engine.console import ConsoleRunner
from tests.helpers.otseg_run import otseg_config
from tests.helpers.tiny_run import write_images

COUNTER = CompileCounterWithBackend("eager")
torch._dynamo.register_backend(COUNTER, name="counter")


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_run_compiles_once(tmp_path: Path) -> None:
    write_images(tmp_path)
    weights = []
    for options in ({}, dict(compile=dict(backend="counter", fullgraph=True))):
        torch._dynamo.reset()
        runner = ConsoleRunner.from_cfg(otseg_config(tmp_path, dropout=False, **options))
        runner.train()
        weights.append(runner.model.state_dict())
    assert COUNTER.frame_count == 1
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_testing_is_not_compiled(tmp_path: Path) -> None:
    write_images(tmp_path)
    runner = ConsoleRunner.from_cfg(otseg_config(tmp_path, compile=dict(backend="no such")))
    assert 0 <= runner.test()["hIoU"] <= 100
