"""Plans and scores of several prompts, and refined maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.ops import (
    multi_prompt_plan,
    pixel_prompt_similarity,
    refine,
    sinkhorn,
    transport_score,
)

pytestmark = pytest.mark.usefixtures("device")


def similarity(prompts: int = 3) -> torch.Tensor:
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    pixels = F.normalize(torch.randn(2, 10, 8, generator=generator), dim=-1)
    queries = F.normalize(torch.randn(2, 4, prompts, 8, generator=generator), dim=-1)
    return pixel_prompt_similarity(pixels, queries)


def test_plan_solves_every_class_on_its_own() -> None:
    s = similarity()
    plan = multi_prompt_plan(s, epsilon=0.1)
    expected = sinkhorn(1 - s[1, 2].T[None], 0.1).plan[0].T
    assert torch.allclose(plan[1, 2], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("transport", ["sinkhorn", "softmax", "none"])
@pytest.mark.parametrize("prompts", [1, 3])
def test_prompts_take_equal_shares(transport: str, prompts: int) -> None:
    plan = multi_prompt_plan(similarity(prompts), transport)
    assert torch.allclose(plan.sum(-1), torch.tensor(1 / prompts), atol=1e-6)


def test_softmax_is_over_the_pixels() -> None:
    s = similarity()
    plan = multi_prompt_plan(s, "softmax", epsilon=0.2)
    assert torch.allclose(plan, (s / 0.2).softmax(-1) / 3)


def test_uniform_score_is_the_sum_of_the_similarities() -> None:
    s = similarity()
    assert torch.allclose(transport_score(s, multi_prompt_plan(s, "none")), s.sum(2), atol=1e-6)


def test_every_pixel_goes_to_the_prompt_that_the_plan_prefers() -> None:
    s = similarity().requires_grad_()
    plan = multi_prompt_plan(s, "bipartite")
    assert torch.allclose(plan.sum(2), torch.tensor(1 / 10))
    assert ((plan > 0).sum(2) == 1).all()
    assert torch.equal(plan.argmax(2), multi_prompt_plan(s.detach()).argmax(2))
    transport_score(s, plan).sum().backward()
    assert torch.allclose(s.grad, plan * 30)


def test_values_in_any_unit_size_and_type() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 10, 8, 8, generator=generator)  # more classes than are refined at once
    image = torch.rand(2, 3, 32, 32, generator=generator)
    refined = refine(maps, image)
    assert refined.shape == (2, 10, 32, 32)
    unit = torch.tensor([1.0, 50.0, 255.0])[:, None, None]
    assert torch.allclose(refine(maps, image * unit + 3), refined, atol=1e-4)
    assert torch.allclose(refine(maps[:, 4:5], image), refined[:, 4:5])
    assert refine(maps.bfloat16(), image).dtype == torch.bfloat16
