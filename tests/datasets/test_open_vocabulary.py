"""The eleven data sets of ``configs/open_vocabulary``, on small data in their layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg_otseg_cli.errors import CommandError
from mmseg_otseg_cli.open_vocabulary import config_on_data, data_configs, read_data_config
from PIL import Image

from mmseg_otseg.engine import resolve
from mmseg_otseg.imaging.classes import class_list, list_names
from tests.helpers.open_vocabulary import LAYOUTS, mean_iou, write_layout
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import last_metrics, run_tool
from tests.helpers.small_configs import CLIP

CONFIGS = ROOT / "configs"
MODELS = {"trained": "otseg/voc_512.py", "training_free": "training_free/names.py"}
CASES = [(name, protocol) for name in LAYOUTS for protocol in read_data_config(name).protocols]


def combined(name: str, protocol: str) -> Config:
    """The config of a small model on a data set."""
    model = Config.fromfile(CONFIGS / MODELS.get(protocol, MODELS["trained"]))
    model.model.clip = dict(CLIP)
    cfg = config_on_data(model, read_data_config(name), protocol)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    return resolve(cfg)


def test_there_is_a_layout_of_each() -> None:
    assert list(data_configs()) == list(LAYOUTS)


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_figures_are_those_counted_by_hand(
    name: str, protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, layout = write_layout(name, tmp_path), LAYOUTS[name]
    monkeypatch.chdir(tmp_path)
    cfg = combined(name, protocol)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    metric: Any = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = loader.dataset.metainfo
    generator = np.random.default_rng(1)
    highest = layout.classes - 1 + layout.background
    tested = np.unique([values for _, values in written])
    tested = tested[(tested > 0) & (tested <= highest)]
    guesses = []
    for (_, values), batch in zip(written, loader):
        (sample,) = batch["data_samples"]
        guess = generator.choice([*tested, 1, 0 if layout.counts else highest], (48, 64))
        right = generator.random((48, 64)) < 0.5
        guess[right] = values[right]
        guess[values == layout.ignored] = highest
        if layout.background and not layout.counts:
            guess[values == 0] = highest
        guesses.append(guess)
        # Classes count from 0, and the background comes after them.
        labels = (guess - 1) % (layout.classes + 1) if layout.background else guess
        sample.pred_sem_seg = PixelData(data=torch.tensor(labels)[None])
        metric.process(batch, [sample.to_dict()])
    figures = metric.evaluate(len(written))
    expected = mean_iou(name, np.stack(guesses), np.stack([values for _, values in written]))
    assert 10 < expected < 90
    assert figures["mIoU"] == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(
    ("name", "protocol", "none_below"),
    [
        ("voc21", "training_free", 0.06),  # values of about half of the pixels
        ("voc21", "trained", 0.15),
        ("voc20b", "trained", None),
        ("context459", "trained", None),
    ],
)
def test_tools_test_on_a_data_set(
    name: str,
    protocol: str,
    none_below: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the predictions that it writes are worth is what it reports."""
    written = write_layout(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(
        f"_base_ = {str(CONFIGS / MODELS['training_free'])!r}\n"
        f"model = dict(clip=dict(_delete_=True, **{CLIP!r}),\n"
        "    neck=dict(text=dict(templates=['a photo of a {}'])),\n"
        "    test_cfg=dict(crop_size=(64, 64), stride=(32, 32)))\n"
        "test_pipeline = [dict(type='LoadImageFromFile'),\n"
        "    dict(type='Resize', scale=(256, 64), keep_ratio=True), dict(type='PackSegInputs')]\n"
    )
    options = ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
    options += [f"protocol={protocol}"]
    if none_below is not None:
        options += [f"model.test_cfg.none_below={none_below}"]
    run_tool(
        "test", "model.py", "--data", name, "--out", "out", "--work-dir", "run", "--cfg-options",
        *options,
    )  # fmt: skip
    found = []
    for file, _ in written:
        with Image.open(Path("out") / f"{file.stem}.png") as image:
            found.append(np.asarray(image))
    expected = mean_iou(name, np.stack(found), np.stack([values for _, values in written]))
    assert last_metrics(Path("run"))["mIoU"] == pytest.approx(expected, abs=0.006)
    if LAYOUTS[name].counts:
        assert 0 in np.stack(found)
        assert np.stack(found).any()


def test_missing_data_is_named_with_its_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"ADE20K_2021_17_01.*convert-data ade20k_847"):
        run_tool("test", "training_free/names", "--data", "ade20k_847")


def test_unknown_data_and_protocols_are_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"voc22.* voc21\?.*ade20k_847"):
        read_data_config("voc22")
    with pytest.raises(CommandError, match="voc20b"):
        read_data_config("otseg/voc_512")
    with pytest.raises(CommandError, match="--data voc20"):
        run_tool("test", "open_vocabulary/voc20")
    model = Config.fromfile(CONFIGS / MODELS["trained"])
    with pytest.raises(CommandError, match="training_free"):
        config_on_data(model, read_data_config("voc20"), "trainingfree")


def test_the_model_config_decides_all_else() -> None:
    model = Config.fromfile(CONFIGS / MODELS["training_free"])
    cfg = config_on_data(model, read_data_config("cityscapes"))
    assert cfg.model.split == dict(classes="sclip/cityscapes")
    steps = cfg.test_dataloader.dataset.pipeline
    assert [step["type"] for step in steps][1:3] == ["Resize", "LoadAnnotations"]
    assert steps[1]["scale"] == (2048, 560)
    assert config_on_data(model, read_data_config("voc20")).test_pipeline[1].scale == (2048, 336)
    assert "LoadAnnotations" not in str(model.test_pipeline) and "protocols" not in cfg
    shapes = Config.fromfile(CONFIGS / "shapes" / "otseg.py")  # its images are drawn
    steps = config_on_data(shapes, read_data_config("voc20")).test_pipeline
    assert [step["type"] for step in steps][::2] == ["LoadImageFromFile", "LoadAnnotations"]


@pytest.mark.parametrize("name", list_names())
def test_every_name_belongs_to_one_class(name: str) -> None:
    """The reader refuses names that are given twice; no class has lost all of its own."""
    project, data = name.split("/")
    named = LAYOUTS[data].counts and project != "mmseg"
    assert len(class_list(name)) == LAYOUTS[data].classes + named
