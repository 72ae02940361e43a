from __future__ import annotations

import pytest
import torch

from mmseg_otseg.ops import multi_prompt_plan, transport_score

pytestmark = pytest.mark.usefixtures("device")


def test_every_pixel_goes_to_the_prompt_that_the_plan_prefers() -> None:
    similarity = torch.rand(2, 3, 4, 50, requires_grad=True)
    plan = multi_prompt_plan(similarity, "bipartite")
    assert torch.allclose(plan.sum(2), torch.full((2, 3, 50), 1 / 50))
    assert ((plan > 0).sum(2) == 1).all()
    entropic = multi_prompt_plan(similarity.detach())
    assert torch.equal(plan.argmax(2), entropic.argmax(2))
    transport_score(similarity, plan).sum().backward()
    assert torch.allclose(similarity.grad, plan * 200)
