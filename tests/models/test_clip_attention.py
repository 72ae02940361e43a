"""The towers' attention is torch's, without a small matrix product for each place of a sequence."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mmseg_otseg.models.clip.layers import SelfAttention, with_self_attention


def attend(attention: nn.Module, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """What tokens attend to, and the gradient of its squares with respect to them."""
    tokens = tokens.clone().requires_grad_()
    out, _ = attention(tokens, tokens, tokens, need_weights=False, attn_mask=mask)
    return out.detach(), torch.autograd.grad(out.square().sum(), tokens)[0]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_torchs(seed: int, causal: bool) -> None:
    torch.manual_seed(seed)
    batch, length, heads, width = torch.randint(1, 9, (4,)).tolist()
    torchs = nn.MultiheadAttention(heads * width, heads, batch_first=True).eval()
    ours = with_self_attention(copy.deepcopy(torchs))
    assert type(ours) is SelfAttention and type(torchs) is nn.MultiheadAttention
    tokens = torch.randn(batch, length, heads * width)
    mask = torch.full((length, length), -torch.inf).triu(1) if causal else None
    for found, expected in zip(attend(ours, tokens, mask), attend(torchs, tokens, mask)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = ours(tokens, tokens, tokens)[1]  # what it does not do itself, torch does
    torch.testing.assert_close(weights, torchs(tokens, tokens, tokens)[1])
