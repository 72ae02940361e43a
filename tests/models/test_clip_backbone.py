from __future__ import annotations

from typing import Any

import pytest
import torch

from mmseg_otseg.models import CLIPBackbone
from mmseg_otseg.models.clip import shared_clip

pytestmark = pytest.mark.usefixtures("device")


def prompted(clip: dict[str, Any], **options: Any) -> CLIPBackbone:
    return CLIPBackbone(clip, visual_prompts={"num_tokens": 4}, **options)


@pytest.mark.parametrize("size", [(96, 160), (50, 71), (16, 16)])
def test_any_size(size: tuple[int, int], clip: dict) -> None:
    features = prompted(clip)(torch.randn(1, 3, *size))
    grid = tuple(-(-side // 16) for side in size)
    assert features.local[0].shape == (1, 32, *grid)
    assert features.global_token.norm(dim=-1).item() == pytest.approx(1, abs=1e-5)


def test_a_backbone_over_the_same_clip_is_left_alone(clip: dict) -> None:
    """As the frozen teacher of a trained backbone needs it."""
    image = torch.randn(2, 3, 64, 64)
    with shared_clip():
        trained = prompted(clip, drop_path_rate=0.9).train()
        frozen = CLIPBackbone(clip).train()
    assert trained.visual is frozen.visual
    expected = CLIPBackbone(clip)(image)
    for features in (frozen(image), trained.plain_features(image)):
        assert torch.equal(features.global_token, expected.global_token)
        assert torch.equal(features.local[0], expected.local[0])
        assert not features.local[0].requires_grad


def test_extra_tokens_that_nothing_sees_change_nothing(clip: dict) -> None:
    class Extra(CLIPBackbone):
        def extra_tokens(self, tokens: Any, grid: Any) -> Any:
            size = tokens.shape[1] + self.num_prompts + 2
            mask = tokens.new_zeros(size, size)
            mask[:-2, -2:] = -torch.inf
            return torch.ones_like(tokens[:, :2]), mask

    torch.manual_seed(0)
    plain = prompted(clip, out_indices=(0, -1)).eval()
    torch.manual_seed(0)
    extra = Extra(clip, visual_prompts={"num_tokens": 4}, out_indices=(0, -1)).eval()
    image = torch.randn(2, 3, 64, 96)
    expected, found = plain(image), extra(image)
    assert expected.extra is None and found.extra.shape == (2, 2, 32)
    assert torch.allclose(found.global_token, expected.global_token, atol=1e-5)
    for level, wanted in zip(found.local, expected.local, strict=True):
        assert torch.allclose(level, wanted, atol=1e-5)
