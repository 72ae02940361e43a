from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS
from mmseg_otseg_cli.authors_to_mmseg import convert, convert_state_dict

from tests.helpers.paths import DATA
from tests.helpers.reference import Reference, relative_error
from tests.helpers.run_tools import run_tool


def save(path: Path, state: dict[str, torch.Tensor], **meta: Any) -> Path:
    torch.save({"state_dict": state, "meta": {"iter": 7, **meta}}, path)
    return path


def config_of(reference: Reference, folder: Path) -> Config:
    """A config whose model the authors' tensors fit."""
    model = reference.model_config(folder)
    clip = model["backbone"].pop("clip")
    del model["neck"]["clip"]
    return Config(dict(model=dict(model, type="CLIPEncoderDecoder", clip=clip)))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return Reference("a").group("state/")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(Reference("a"), tmp_path)


#: How the authors' training configs, which mmcv writes into checkpoints, name their segmentors.
NAMED = {
    name.lower(): f"model = dict(\n    type='{name}',\n    decode_head=dict(type='ATMSingleHead'))"
    for name in ("OTSeg", "ZegCLIP")
}


@pytest.mark.parametrize(
    ("method", "name", "named"),
    [("otseg", "a", True), ("otseg", "b", False), ("zegclip", "b", True)],
)
def test_predictions_of_a_converted_file(
    method: str, name: str, named: bool, tmp_path: Path
) -> None:
    """Through mmengine's loading and mmseg's predict path the authors' numbers come out."""
    reference = Reference(name, method)
    meta = {"config": NAMED[method]} if named else {}
    source = save(tmp_path / "authors.pth", reference.group("state/"), **meta)
    target = tmp_path / "new" / "ours.pth"
    found = convert(source, target, config_of(reference, tmp_path))
    assert found.lower() == (method if named else "otseg")
    image = reference.tensor("input/image")
    cfg = config_of(reference, tmp_path).model
    cfg.clip.model.vision_cfg.image_size *= 2  # another native size
    cfg.clip.quick_gelu = False  # the file brings its activation
    model = MODELS.build(cfg).eval()
    load_checkpoint(model, str(target), strict=True)
    with torch.no_grad():
        samples = model.predict(image)
    predicted = torch.stack([sample.seg_logits.data for sample in samples])
    assert relative_error(predicted, reference.tensor("output/test_inductive")) < 1e-4


@pytest.mark.parametrize("method", ["otseg", "zegclip"])
def test_the_other_methods_head_refuses_a_converted_file(method: str, tmp_path: Path) -> None:
    """It has tensors of the same names and shapes, and would predict nonsense."""
    reference = Reference("b", method)
    source = save(tmp_path / "a.pth", reference.group("state/"), config=NAMED[method])
    config = config_of(reference, tmp_path)
    convert(source, tmp_path / "ours.pth", config)
    other = {"otseg": "ZegCLIPHead", "zegclip": "MPSAHead"}[method]
    config.model.decode_head = dict(type=other)
    with pytest.raises(ValueError, match=r"attention'.*config"):
        load_checkpoint(MODELS.build(config.model), str(tmp_path / "ours.pth"))
    with pytest.raises(ValueError, match="attention'"):
        convert(source, tmp_path / "again.pth", config)


def test_a_full_voc_checkpoint() -> None:
    shapes = json.loads((DATA / "otseg_voc_vitb16_shapes.json").read_text())
    zeros = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    converted, dropped = convert_state_dict(zeros)
    assert "decode_head.loss_decode.criterion.empty_weight" in dropped
    assert "decode_head.decoder_1.layers.0.self_attn.in_proj_weight" in dropped
    assert converted["backbone.visual_prompts.embeddings"].shape == (12, 10, 768)
    trained = [v for n, v in converted.items() if "clip" not in n and v.dtype == torch.float32]
    assert sum(value.numel() for value in trained) == 8_039_168


def test_missing_misshapen_and_unknown_tensors_are_named(
    state: dict, config: Config, tmp_path: Path
) -> None:
    name, ours = "decode_head.q_proj.weight", "neck.descriptor.linear.weight"
    tensor, target = state.pop(name), tmp_path / "ours.pth"
    with pytest.raises(ValueError, match=rf"authors\.pth[\s\S]*{ours}"):
        convert(save(tmp_path / "authors.pth", state), target, config)
    misshapen = {**state, name: tensor[..., :-1]}
    with pytest.raises(ValueError, match=ours):
        convert(save(tmp_path / "authors.pth", misshapen), target, config)
    unknown = {**state, name: tensor, "backbone.adapter.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"adapter\.weight"):
        convert(save(tmp_path / "authors.pth", unknown), target, config)
    assert not target.exists()


def test_command_line(state: dict, tmp_path: Path) -> None:
    source = save(tmp_path / "authors.pth", state)  # of a small model
    with pytest.raises(ValueError, match=r"configs/otseg/voc_512\.py[\s\S]*size mismatch"):
        run_tool("model_converters/authors_to_mmseg", source, tmp_path / "ours.pth")
