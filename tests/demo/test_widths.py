"""Both tabs of the page, as wide as a window and as a telephone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.browser import Visitor, find_browser, served

pytest.importorskip("gradio", reason="gradio is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="no chromium with chromedriver is installed")
def test_all_is_whole_at_every_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    clip = open_clip.create_model("ViT-B-16-quickgelu")
    save_file(clip.half().state_dict(), tmp_path / "clip.safetensors")
    monkeypatch.setenv("CLIP_WEIGHTS", str(tmp_path / "clip.safetensors"))
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for name, size in (("wide", (60, 120, 3)), ("tall", (120, 80, 3))):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(photos / f"{name}.png")
    with served(["--images", str(photos)], tmp_path) as address:
        visitor = Visitor(address, tmp_path / "profile")
        try:
            assert visitor.wait_for(visitor.source)
            for prefix in ("", "photos-"):
                visitor.press(f"#{prefix}tab-button")
                assert visitor.wait_for(partial(visitor.source, f"#{prefix}result"))
                for width in (1280, 400):
                    visitor.resize(width)
                    assert visitor.wait_for(lambda: not visitor.cut_off())
            assert "NACLIP" in visitor.one("#photos-about").text
            assert len(visitor.all("#photos-samples img")) == 2
        finally:
            visitor.driver.quit()
