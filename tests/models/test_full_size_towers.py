"""The largest towers in use, at full size, with random weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.paths import ROOT

SCRIPT = """
import resource, sys
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import mmseg_otseg

init_default_scope("mmseg")
cfg = Config.fromfile("configs/otseg/voc_512.py")
name, text = sys.argv[1:]
cfg.merge_from_dict({"model.clip": dict(model=name, pretrained=None), "model.neck.text": text})
model = MODELS.build(cfg.model).eval()
with torch.no_grad():
    values = model.predict(torch.randn(1, 3, 512, 512))[0].seg_logits.data
assert values.shape == (20, 512, 512) and values.isfinite().all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width"),
    [("EVA02-L-14-336", 768), ("ViT-SO400M-16-SigLIP2-512", 1152)],
)
def test_one_forward_within_24_gib(name: str, width: int, tmp_path: Path) -> None:
    text = np.random.default_rng(0).normal(size=(20, 6, width)).astype(np.float32)
    np.save(tmp_path / "text.npy", text)  # SigLIP's tokenizer would have to be downloaded
    command = [sys.executable, "-c", SCRIPT, name, str(tmp_path / "text.npy")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) / 2**20 < 24  # of KiB
