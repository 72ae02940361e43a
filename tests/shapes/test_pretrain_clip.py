"""Pre-training of the tiny CLIP: its loss, its checkpoints, what it writes."""

from __future__ import annotations

import open_clip
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES
from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.models.text import OTSEG_6
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def tool():
    from tools.shapes import pretrain_clip

    return pretrain_clip


@pytest.fixture
def config():
    config = Config.fromfile(ROOT / "configs/shapes/clip/shapes_clip.py")
    config.merge_from_dict(
        {
            "clip.model.vision_cfg": dict(
                image_size=64, patch_size=16, width=32, layers=1, head_width=16
            ),
            "clip.model.embed_dim": 16,
            "clip.model.text_cfg.width": 16,
            "clip.model.text_cfg.layers": 1,
            "pretrain": dict(steps=6, batch_size=8, warmup=2, single_steps=2),
        }
    )
    return config


def test_a_stopped_run_ends_in_the_same_file_which_loads_as_every_clip(tool, config, tmp_path):
    path = tool.train(config, tmp_path / "whole", "cpu")
    assert tool.train(config, tmp_path / "parts", "cpu", stop_at=3) is None
    assert tool.train(config, tmp_path / "parts", "cpu").read_bytes() == path.read_bytes()
    tensors = load_file(path)
    ids, rows = tensors["token_embedding.ids"], tensors["token_embedding.rows"]
    assert ids.tolist() == sorted(set(ids.tolist())) and len(ids) == len(rows) < 50
    clip = load_clip(config.clip.model.to_dict(), str(path))
    assert clip.token_embedding.weight.shape == (49408, 16)
    assert torch.equal(clip.token_embedding.weight[ids], rows.float())
    words = open_clip.get_tokenizer("ViT-B-32")(
        [t.format(n) for t in OTSEG_6 for n in SHAPES_CLASSES], context_length=32
    )
    assert set(words.unique().tolist()) <= set(ids.tolist())  # no prompt uses an untrained row


def test_contrastive_loss_spreads_over_true_captions(tool):
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    positive = torch.tensor([[True, True, False], [False, False, False]])
    rows = -(logits[0].log_softmax(0)[:2].mean())  # the second row has no positive
    columns = -(logits.log_softmax(0)[0, :2].mean())
    expected = 0.5 * (rows + columns)
    torch.testing.assert_close(tool.contrastive(logits, positive), expected)
