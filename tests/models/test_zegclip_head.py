from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg_otseg_tools.benchmarks.plain import plain_multi_head_decoder

from mmseg_otseg.engine import read_checkpoint
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models import ZegCLIPHead
from mmseg_otseg.models.decode_heads import MultiHeadDecoder
from mmseg_otseg.structures import AlignedFeatures
from tests.helpers.otseg_run import otseg_config
from tests.helpers.run_tools import run_tool
from tests.helpers.tiny_run import write_images


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (3, 4), (2, 24)])
def test_decoder_is_the_papers(layers: int, heads: int) -> None:
    decoder = MultiHeadDecoder(24, layers, heads).double().eval()
    queries, pixels = torch.randn(2, 3, 1, 24).double(), torch.randn(2, 10, 24).double()
    expected = plain_multi_head_decoder(decoder, queries[:, :, 0], pixels, heads)
    assert torch.allclose(decoder(queries, pixels), expected, atol=1e-12)


@pytest.mark.usefixtures("device")
def test_prompts_of_a_class_are_decoded_alone_and_averaged() -> None:
    decoder = MultiHeadDecoder(16, num_heads=4).double().eval()
    queries, pixels = torch.randn(2, 3, 5, 16).double(), torch.randn(2, 10, 16).double()
    alone = [decoder(prompt[:, :, None], pixels) for prompt in queries.unbind(2)]
    assert torch.allclose(decoder(queries, pixels), sum(alone) / 5, atol=1e-12)


@pytest.mark.usefixtures("device")
def test_dropout_reaches_the_attention_in_training_only() -> None:
    layer = MultiHeadDecoder(16, num_heads=4, dropout=0.5).layers[0]
    queries, pixels = torch.randn(1, 2, 1, 16), torch.randn(1, 50, 16)
    for quiet in (layer.dropout, layer.feed_forward):  # all other dropout
        quiet.eval()
    assert not torch.equal(layer(queries, pixels), layer(queries, pixels))
    layer.eval()
    assert torch.equal(layer(queries, pixels), layer(queries, pixels))


@pytest.mark.usefixtures("device")
def test_one_map_learns_and_labels() -> None:
    head = ZegCLIPHead(num_classes=3, embed_dim=16, decoder_heads=4)
    pixels = torch.nn.functional.normalize(torch.randn(2, 16, 3, 5), dim=1)
    seen = torch.tensor([True, False, True])
    inputs = AlignedFeatures((pixels,), torch.randn(2, 3, 1, 16), torch.arange(3), seen)
    labels = torch.where(torch.rand(2, 24, 40) < 0.5, 254, 2)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    losses = head.loss(inputs, samples)
    assert set(losses) == {"decoder.loss_mask", "decoder.loss_dice"}
    sum(losses.values()).backward()
    assert all(parameter.grad.any() for parameter in head.parameters())


def test_a_run_resumes_bit_for_bit_and_its_checkpoint_takes_any_names(tmp_path: Path) -> None:
    write_images(tmp_path)
    cfg = otseg_config(tmp_path)
    cfg.model.decode_head.type = "ZegCLIPHead"
    cfg.model.neck.text.average = True
    config, whole = tmp_path / "config.py", tmp_path / "whole"
    cfg.dump(config)
    run_tool("train", config, "--work-dir", whole)
    run_tool("train", config, "--resume", whole / "iter_2.pth")
    first, second = (read_checkpoint(run / "iter_4.pth") for run in (whole, tmp_path / "run"))
    torch.testing.assert_close(first["state_dict"], second["state_dict"], rtol=0, atol=0)
    inferencer = OTSegInferencer(str(config), str(whole / "iter_4.pth"), device="cpu")
    result = inferencer(
        np.zeros((40, 56, 3), np.uint8), classes=["sky", "sea", "a red boat", "pier"]
    )
    assert result["predictions"][0].shape == (40, 56) and len(result["classes"]) == 4
