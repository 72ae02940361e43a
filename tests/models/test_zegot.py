from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from torch import nn

from mmseg_otseg.models import load_clip
from mmseg_otseg.ops import multi_prompt_plan, pixel_prompt_similarity, transport_score
from tests.helpers.small_configs import CLIP, small

pytestmark = pytest.mark.usefixtures("device")


def zegot() -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(small("zegot/voc_512.py", Path("none")).model))


def test_untouched_it_is_clips_own_similarity_through_mps() -> None:
    model = zegot().eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model.decode_head.level_logits.copy_(torch.tensor([-100.0, -100, 0]))  # the last level
        score = model.decode_head(model.extract_feat(image))["score"]
        clip = load_clip(**CLIP)
        clip.visual.output_tokens = True
        _, tokens = clip.visual(image)
        pixels = F.normalize(tokens @ clip.visual.proj, dim=-1)
        text = model.neck.text()[None].expand(2, -1, -1, -1)
        similarity = pixel_prompt_similarity(pixels, text)
        expected = transport_score(similarity, multi_prompt_plan(similarity))
    assert torch.allclose(score.flatten(2), expected, atol=1e-4)
