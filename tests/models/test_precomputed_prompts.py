from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from mmseg_otseg.models import PrecomputedPrompts

SPLIT = {"classes": ["cat", "potted plant", "tv monitor"], "unseen": ["tv monitor"]}


def test_precomputed(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 2, 8))
    np.save(tmp_path / "t.npy", array)
    prompts = MODELS.build(
        {"type": "PrecomputedPrompts", "path": str(tmp_path / "t.npy"), "split": SPLIT, "clip": {}}
    )
    assert prompts.num_prompts == 2 and prompts.embed_dim == 8
    expected = array / np.linalg.norm(array, axis=-1, keepdims=True)
    assert np.allclose(prompts(), expected, atol=1e-6)
    assert prompts(torch.tensor([2])).shape == (1, 2, 8)


def test_rows_follow_their_names(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.eye(3, 8))
    prompts = PrecomputedPrompts(str(tmp_path / "t.npy"), SPLIT)
    prompts.set_classes({"classes": ["tv monitor", "cat"]})
    assert prompts()[:, 0].argmax(-1).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"t\.npy .*dog:"):
        prompts.set_classes({"classes": ["cat", "dog", "tv monitor"]})
    assert prompts.split.classes == ("tv monitor", "cat")


@pytest.mark.parametrize("array", [np.ones((5, 2, 8)), np.ones(3), np.zeros((3, 2, 8))])
def test_arrays_that_do_not_fit(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(ValueError, match=r"t\.npy "):
        PrecomputedPrompts(str(tmp_path / "t.npy"), SPLIT)
