from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.imaging import resize, windows


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(7, 31), (40, 1), (600, 530), (3, 3), (1, 2)])
def test_it_is_interpolate(size: tuple[int, int], align_corners: bool) -> None:
    values = np.random.default_rng(0).random((20, 26, 3), dtype=np.float32)
    expected = F.interpolate(
        torch.from_numpy(values).permute(2, 0, 1)[None],
        size,
        mode="bilinear",
        align_corners=align_corners,
    )[0].permute(1, 2, 0)
    np.testing.assert_allclose(resize(values, size, align_corners), expected, atol=2e-5)


def test_images_are_rounded() -> None:
    image = np.array([[[0], [255]]], np.uint8)
    assert resize(image, (1, 4))[0, :, 0].tolist() == [0, 64, 191, 255]
    assert resize(image, (1, 2)) is image


def test_windows() -> None:
    assert windows(100, 64, 48) == [slice(0, 64), slice(36, 100)]
    assert windows(64, 64, 48) == [slice(0, 64)]
    assert windows(50, 64, 48) == [slice(0, 50)]
