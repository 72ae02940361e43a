from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner, load_checkpoint
from mmseg.registry import MODELS
from mmseg_otseg_cli.authors_to_mmseg import convert, convert_state_dict

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.paths import DATA
from tests.helpers.reference import Reference, relative_error
from tests.helpers.run_tools import run_tool
from tests.helpers.small_configs import small, write_data


def save(path: Path, state: dict[str, torch.Tensor], **meta: Any) -> Path:
    torch.save({"state_dict": state, "meta": {"iter": 7, **meta}}, path)
    return path


def config_of(reference: Reference, folder: Path) -> Config:
    """A config whose model the authors' tensors fit."""
    model = reference.model_config(folder)
    return Config(dict(model=dict(model, type="CLIPEncoderDecoder", clip=reference.clip())))


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


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("method", "name"), [("otseg", "a"), ("otseg", "b"), ("zegclip", "b")])
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
    for setting, bias in (("inductive", 0.1), ("transductive", 0.0)):
        cfg = config_of(reference, tmp_path).model
        cfg.backbone.clip.model.vision_cfg.image_size *= 2  # another native size
        cfg.backbone.clip.quick_gelu = False  # the file brings its activation
        cfg.decode_head.seen_bias = bias
        model = MODELS.build(cfg).eval()
        load_checkpoint(model, str(target), strict=True)
        with torch.no_grad():
            samples = model.predict(image)
        predicted = torch.stack([sample.seg_logits.data for sample in samples])
        assert relative_error(predicted, reference.tensor(f"output/test_{setting}")) < 1e-4


def test_stock_config_runs_a_converted_file(state: dict, config: Config, tmp_path: Path) -> None:
    write_data(tmp_path)
    convert(save(tmp_path / "authors.pth", state), tmp_path / "ours.pth", config)
    reference = Reference("a")
    cfg = small("otseg/voc_512.py", tmp_path)
    cfg.model.clip = ConfigDict(reference.clip())
    cfg.model.backbone.visual_prompts.num_tokens = reference.config("visual_prompt_tokens")
    cfg.load_from = str(tmp_path / "ours.pth")
    runner = Runner.from_cfg(cfg)
    assert "hIoU" in runner.test()
    assert runner.model.backbone.double_class_embedding
    weight = runner.model.neck.descriptor.linear.weight
    assert torch.equal(weight, state["decode_head.q_proj.weight"])


def test_other_pixels_are_refused(state: dict, config: Config, tmp_path: Path) -> None:
    convert(save(tmp_path / "authors.pth", state), tmp_path / "ours.pth", config)
    config.model.data_preprocessor.std = [68.5, 66.6, 70.3]
    with pytest.raises(ValueError, match="normalized"):
        load_checkpoint(MODELS.build(config.model), str(tmp_path / "ours.pth"))


@pytest.mark.parametrize("method", ["otseg", "zegclip"])
def test_the_other_methods_head_refuses_a_converted_file(method: str, tmp_path: Path) -> None:
    """It has tensors of the same names and shapes, and would predict nonsense."""
    reference = Reference("b", method)
    source = save(tmp_path / "a.pth", reference.group("state/"), config=NAMED[method])
    config = config_of(reference, tmp_path)
    convert(source, tmp_path / "ours.pth", config)
    other = {"otseg": "ZegCLIPHead", "zegclip": "MPSAHead"}[method]
    config.model.decode_head = dict(type=other, clip=reference.clip(), num_classes=4)
    with pytest.raises(ValueError, match=r"attention'.*config"):
        load_checkpoint(MODELS.build(config.model), str(tmp_path / "ours.pth"))
    with pytest.raises(ValueError, match="attention'"):
        convert(source, tmp_path / "again.pth", config)


def test_continued_training_keeps_the_towers_weights(
    state: dict, config: Config, tmp_path: Path
) -> None:
    """Nobody could build the authors' tower from the config again: checkpoints go on holding it."""
    convert(save(tmp_path / "authors.pth", state), tmp_path / "ours.pth", config)
    model, again = (MODELS.build(config.model) for _ in range(2))
    load_checkpoint(model, str(tmp_path / "ours.pth"))
    again.load_state_dict(model.state_dict())
    assert again.backbone.double_class_embedding
    position = again.backbone.visual.positional_embedding
    assert torch.equal(position, state["backbone.positional_embedding"])


def test_a_full_voc_checkpoint() -> None:
    shapes = json.loads((DATA / "otseg_voc_vitb16_shapes.json").read_text())
    zeros = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    converted, dropped = convert_state_dict(zeros)
    assert "decode_head.loss_decode.criterion.empty_weight" in dropped
    assert "decode_head.decoder_1.layers.0.self_attn.in_proj_weight" in dropped
    assert converted["backbone.visual_prompts.embeddings"].shape == (12, 10, 768)
    trained = [v for n, v in converted.items() if "clip" not in n and v.dtype == torch.float32]
    assert sum(value.numel() for value in trained) == 8_039_168


def test_class_names_travel(state: dict, config: Config, tmp_path: Path) -> None:
    meta = dict(CLASSES=["a", "b"], PALETTE=np.eye(3), log=HistoryBuffer([1.0], [1]))
    convert(save(tmp_path / "voc.pth", state, **meta), tmp_path / "ours.pth", config)
    assert read_checkpoint(tmp_path / "ours.pth")["meta"]["dataset_meta"]["classes"] == ("a", "b")


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("backbone.prompt_embeddings", "visual_prompts"),
        ("backbone.deep_prompt_embeddings", "prompt"),
        ("backbone.transformer.resblocks.1.mlp.c_fc.weight", "resblocks.1.mlp.c_fc.weight"),
        ("decode_head.decoder_1.layers.2.multihead_attn.k.bias", "decoder.last.key.bias"),
        ("decode_head.q_proj.weight", "neck.descriptor.linear.weight"),
    ],
)
def test_missing_misshapen_and_unknown_tensors_are_named(
    name: str, ours: str, state: dict, config: Config, tmp_path: Path
) -> None:
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


def test_wrong_files(config: Config, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        convert(tmp_path / "nothing.pth", tmp_path / "o.pth", config)
    torch.save({"model": 1}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth .*`state_dict`"):
        convert(tmp_path / "other.pth", tmp_path / "o.pth", config)
    with pytest.raises(ValueError, match=r"other\.pth "):
        convert(tmp_path / "other.pth", tmp_path / "other.pth", config)
    torch.save({"state_dict": {}, "meta": {"hook": Path.touch}}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth .*refused"):
        convert(tmp_path / "evil.pth", tmp_path / "o.pth", config)


def test_command_line(state: dict, config: Config, tmp_path: Path) -> None:
    config.dump(tmp_path / "config.py")
    source = save(tmp_path / "authors.pth", state)
    tool = "model_converters/authors_to_mmseg"
    run_tool(tool, source, tmp_path / "o.pth", "--config", tmp_path / "config.py")
    assert (tmp_path / "o.pth").is_file()
    with pytest.raises(ValueError, match=r"configs/otseg/voc_512\.py[\s\S]*size mismatch"):
        run_tool(tool, source, tmp_path / "p.pth")
