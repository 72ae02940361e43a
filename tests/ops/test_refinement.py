from __future__ import annotations

import torch

from mmseg_otseg.ops import refine


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
