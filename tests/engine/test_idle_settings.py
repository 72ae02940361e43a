"""Settings at the top level of a config that nothing reads; see tests/configs/test_own_data.py."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmseg_otseg.engine import idle_settings
from tests.helpers.paths import ROOT

CONFIGS = sorted(
    file
    for file in (ROOT / "configs").rglob("*.py")
    if file.parent.name != "clip" and "_base_" not in file.parts
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(idle_settings, "print_log", lambda text, *_: texts.append(text))
    return texts


def test_warns_of_a_size_or_pipeline_that_no_dataloader_has(said: list[str]) -> None:
    cfg = Config.fromfile(ROOT / "configs/otseg/voc_512.py", import_custom_modules=False)
    cfg.crop_size = (256, 256)
    idle_settings.warn_of_idle_pipelines(cfg)
    cfg.train_pipeline = cfg.train_pipeline[:-1]
    cfg.crop_size = [512, 512]  # what a dumped config has for (512, 512)
    idle_settings.warn_of_idle_pipelines(cfg)
    assert [text.split("=")[0].split()[-1] for text in said] == ["crop_size", "train_pipeline"]


def test_no_config_of_the_project_has_one(said: list[str]) -> None:
    for file in CONFIGS:
        cfg = Config.fromfile(file, import_custom_modules=False)
        idle_settings.warn_of_idle_pipelines(cfg)
        assert not said, file
