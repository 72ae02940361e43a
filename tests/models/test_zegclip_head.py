from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_otseg.models import ZegCLIPHead
from mmseg_otseg.models.decode_heads import MultiHeadDecoder
from mmseg_otseg.structures import AlignedFeatures
from tools.benchmarks.plain import plain_multi_head_decoder


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (3, 4), (2, 24)])
def test_decoder_is_the_papers(layers: int, heads: int) -> None:
    decoder = MultiHeadDecoder(24, layers, heads).double().eval()
    queries, pixels = torch.randn(2, 3, 1, 24).double(), torch.randn(2, 10, 24).double()
    expected = plain_multi_head_decoder(decoder, queries[:, :, 0], pixels, heads)
    assert torch.allclose(decoder(queries, pixels), expected, atol=1e-12)


def test_prompts_of_a_class_are_decoded_alone_and_averaged() -> None:
    decoder = MultiHeadDecoder(16, num_heads=4).double().eval()
    queries, pixels = torch.randn(2, 3, 5, 16).double(), torch.randn(2, 10, 16).double()
    alone = [decoder(prompt[:, :, None], pixels) for prompt in queries.unbind(2)]
    assert torch.allclose(decoder(queries, pixels), sum(alone) / 5, atol=1e-12)


def test_dropout_reaches_the_attention_in_training_only() -> None:
    layer = MultiHeadDecoder(16, num_heads=4, dropout=0.5).layers[0]
    queries, pixels = torch.randn(1, 2, 1, 16), torch.randn(1, 50, 16)
    for quiet in (layer.dropout, layer.feed_forward):  # all other dropout
        quiet.eval()
    assert not torch.equal(layer(queries, pixels), layer(queries, pixels))
    layer.eval()
    assert torch.equal(layer(queries, pixels), layer(queries, pixels))


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


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"5 attention heads .* width 16"):
        ZegCLIPHead(num_classes=3, embed_dim=16, decoder_heads=5)


def test_levels_that_nothing_would_read_are_refused() -> None:
    with pytest.raises(ValueError, match="num_levels=3"):
        ZegCLIPHead(num_classes=3, embed_dim=16, num_levels=3)
