from __future__ import annotations

import pytest
import torch

from mmseg_otseg.models.decode_heads import MultiHeadDecoder
from tools.benchmarks.plain import plain_multi_head_decoder


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
