"""Layers of CLIP's towers: which activation they use, and a faster self-attention."""

from __future__ import annotations

from typing import Any, TypeVar

import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def uses_quick_gelu(tower: nn.Module) -> bool:
    """Whether a tower of open_clip has QuickGELU (OpenAI's) instead of GELU.

    The weights of a tower do not say which one they need.
    """
    return any(isinstance(module, QuickGELU) for module in tower.modules())


def set_quick_gelu(tower: nn.Module, quick_gelu: bool) -> None:
    """Give every block of a tower of open_clip the activation QuickGELU or GELU, in place."""
    for module in list(tower.modules()):
        for name, child in module.named_children():
            if isinstance(child, (QuickGELU, nn.GELU)):
                setattr(module, name, QuickGELU() if quick_gelu else nn.GELU())


def activation_name(quick_gelu: bool) -> str:
    """The activation as messages name it."""
    return "QuickGELU" if quick_gelu else "GELU"


class SelfAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` that projects all tokens of a batch in one matrix product.

    torch's own orders tokens by position first, then multiplies the few tokens at each position by
    the weights separately; in bfloat16, a CPU even copies the weights for every position.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """As in ``nn.MultiheadAttention``.

        Args:
            query, key, value: Tokens, shape (B, L, C).
            args, options: Those of the base class.

        Returns:
            What the tokens attend to, (B, L, C), and the attention weights if asked for.
        """
        mask = options.get("attn_mask")
        other = args or options.keys() - {"need_weights", "attn_mask"}
        if (
            other
            or not self._is_plain()
            or not query is key is value
            or options.get("need_weights", True)
            or (mask is not None and not (mask.dim() == 2 and mask.is_floating_point()))
        ):
            return super().forward(query, key, value, *args, **options)
        q, k, v = self.heads(query)
        return self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)), None

    def heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, h, L, C / h) each, of tokens (B, L, C)."""
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)  # (B, L, 3 * C)
        q, k, v = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        return q, k, v

    def join(self, attended: Tensor) -> Tensor:
        """The output (B, L, C) for what each head attends to, (B, h, L, C / h)."""
        out = self.out_proj
        return F.linear(attended.transpose(1, 2).flatten(2), out.weight, out.bias)

    def _is_plain(self) -> bool:
        extras = self.bias_k is not None or self.add_zero_attn or self.dropout
        return self.batch_first and self._qkv_same_embed_dim and not extras


def with_self_attention(model: Module) -> Module:
    """Make every ``nn.MultiheadAttention`` of a model a :class:`SelfAttention`, in place."""
    for module in model.modules():
        if type(module) is nn.MultiheadAttention:
            module.__class__ = SelfAttention
    return model
