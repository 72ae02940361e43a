from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmseg_otseg.ops import refine, refine_largest
from mmseg_otseg.ops.refinement import neighbor_weights
from tests.helpers.paths import DATA


def reference(name: str) -> Tensor:
    with np.load(DATA / "training_free_tiny_a.npz") as file:
        return torch.from_numpy(file[name])


def test_refined_maps_are_those_of_the_released_code() -> None:
    maps = reference("output/naclip/cosine_maps")
    refined = refine(maps, reference("input/image"))
    assert (refined - reference("output/naclip/pamr_maps")).abs().max() < 1e-5
    assert (refined - maps).abs().max() > 1e-2  # they differ from those that went in


def test_weights_by_the_definition() -> None:
    image = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    weights = neighbor_weights(image, (2, 3))
    places = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    row, column = 1, 10  # at the border, where the outermost pixels are repeated
    windows = [
        torch.stack([image[0, :, np.clip(1 + d * y, 0, 8), np.clip(10 + d * x, 0, 10)]
                     for y, x in places], dim=1)
        for d in (2, 3)
    ]  # fmt: skip
    spread = torch.cat(windows, dim=1).std(dim=1)
    others = torch.cat([window[:, [0, 1, 2, 3, 5, 6, 7, 8]] for window in windows], dim=1)
    center = image[0, :, row, column]
    logits = -((center[:, None] - others).abs() / (1e-8 + 0.1 * spread[:, None])).mean(0)
    assert torch.allclose(weights[0, :, row, column], logits.softmax(0), atol=1e-6)


def test_edges_move_to_those_of_the_image() -> None:
    image = torch.zeros(1, 3, 40, 64)
    image[..., 30:] = 200.0
    coarse = torch.zeros(1, 2, 40, 64)
    coarse[:, 0, :, :24], coarse[:, 1, :, 24:] = 1.0, 1.0  # an edge 6 pixels from the image's
    labels = refine(coarse, image, dilations=(1, 4)).argmax(1)
    assert (labels == (image[:, 0] > 0)).float().mean() > 0.95
    flat = refine(coarse, torch.ones_like(image))  # without any edge: a plain mean
    assert flat.isfinite().all() and torch.allclose(flat.sum(1), torch.ones(()))


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


def test_only_the_classes_that_are_largest_somewhere() -> None:
    maps, image = reference("output/naclip/cosine_maps")[0], reference("input/image")[0]
    maps = torch.cat([maps, maps.min(0, keepdim=True).values - 1])
    classes, refined = refine_largest(maps, image)
    assert 10 not in classes and classes.tolist() == sorted(set(maps.argmax(0).flatten().tolist()))
    assert torch.equal(refined, refine(maps[None, classes], image[None])[0])
