"""The towers' attention is torch's, without a small matrix product for each place of a sequence."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_otseg.models import load_clip
from mmseg_otseg.models.clip.layers import SelfAttention, with_self_attention
from tests.helpers.tiny_clip import tiny_clip


class Operations(TorchDispatchMode):
    """Collects the names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_product_for_each_place(dtype: torch.dtype) -> None:
    clip = load_clip(tiny_clip()).requires_grad_(False).to(dtype)
    tokens = torch.randn(3, 7, 48, dtype=dtype, requires_grad=True)
    with Operations() as watch:
        clip.visual.transformer.resblocks[0](tokens).sum().backward()
    assert any("mm" in name for name in watch.names)
    assert not any("bmm" in name for name in watch.names)
