from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner, load_checkpoint
from mmseg.registry import MODELS

from mmseg_otseg.converters.authors_checkpoint import (
    convert_authors_checkpoint,
    convert_authors_state_dict,
)
from mmseg_otseg.engine import read_checkpoint
from tests.helpers.paths import DATA, ROOT
from tests.helpers.reference import Reference, relative_error
from tests.helpers.small_configs import small, write_data

TOOL = ROOT / "tools" / "model_converters" / "authors_to_mmseg.py"


def save(path: Path, state: dict[str, torch.Tensor], **meta: Any) -> Path:
    torch.save({"state_dict": state, "meta": {"iter": 7, **meta}}, path)
    return path


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return Reference("a").group("state/")


#: How the authors' training configs, which mmcv writes into checkpoints, name their segmentors.
NAMED = {
    name.lower(): f"model = dict(\n    type='{name}',\n    decode_head=dict(type='ATMSingleHead'))"
    for name in ("OTSeg", "ZegCLIP")
}


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize(("method", "name"), [("otseg", "a"), ("otseg", "b"), ("zegclip", "b")])
def test_predictions_of_a_converted_file(
    method: str, name: str, config: bool, tmp_path: Path
) -> None:
    """Through mmengine's loading and mmseg's predict path the authors' numbers come out."""
    reference = Reference(name, method)
    meta = {"config": NAMED[method]} if config else {}
    report = convert_authors_checkpoint(
        save(tmp_path / "authors.pth", reference.group("state/"), **meta),
        tmp_path / "new" / "ours.pth",
    )
    assert (report.method or "").lower() == (method if config else "")
    image = reference.tensor("input/image")
    for setting, bias in (("inductive", 0.1), ("transductive", 0.0)):
        model_config = reference.model_config(tmp_path)
        clip = model_config["backbone"]["clip"]
        clip["model"]["vision_cfg"]["image_size"] *= 2  # another native size
        clip["quick_gelu"] = False  # the file brings its activation
        model_config["decode_head"]["seen_bias"] = bias
        model = MODELS.build(ConfigDict(model_config)).eval()
        load_checkpoint(model, str(tmp_path / "new" / "ours.pth"), strict=True)
        with torch.no_grad():
            samples = model.predict(image)
        predicted = torch.stack([sample.seg_logits.data for sample in samples])
        assert relative_error(predicted, reference.tensor(f"output/test_{setting}")) < 1e-4


def test_stock_config_runs_a_converted_file(state: dict, tmp_path: Path) -> None:
    write_data(tmp_path)
    convert_authors_checkpoint(save(tmp_path / "authors.pth", state), tmp_path / "ours.pth")
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


@pytest.mark.parametrize("method", ["otseg", "zegclip"])
def test_the_other_methods_head_refuses_a_converted_file(method: str, tmp_path: Path) -> None:
    """It has tensors of the same names and shapes, and would predict nonsense."""
    reference = Reference("b", method)
    meta = {"config": NAMED[method]}
    source = save(tmp_path / "authors.pth", reference.group("state/"), **meta)
    convert_authors_checkpoint(source, tmp_path / "ours.pth")
    config = reference.model_config(tmp_path)
    other = {"otseg": "ZegCLIPHead", "zegclip": "MPSAHead"}[method]
    config["decode_head"] = dict(type=other, embed_dim=reference.config("embed_dim"), num_classes=4)
    model = MODELS.build(ConfigDict(config))
    with pytest.raises(ValueError, match=r"attention'.*config"):
        load_checkpoint(model, str(tmp_path / "ours.pth"))


def test_continued_training_keeps_the_towers_weights(state: dict, tmp_path: Path) -> None:
    """Nobody could build the authors' tower from the config again: checkpoints go on holding it."""
    convert_authors_checkpoint(save(tmp_path / "authors.pth", state), tmp_path / "ours.pth")
    model = Reference("a").model(tmp_path)
    load_checkpoint(model, str(tmp_path / "ours.pth"))
    again = MODELS.build(ConfigDict(Reference("a").model_config(tmp_path)))
    again.load_state_dict(model.state_dict())
    assert again.backbone.double_class_embedding
    position = again.backbone.visual.positional_embedding
    assert torch.equal(position, state["backbone.positional_embedding"])


def test_a_full_voc_checkpoint() -> None:
    shapes = json.loads((DATA / "otseg_voc_vitb16_shapes.json").read_text())
    zeros = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    converted, dropped = convert_authors_state_dict(zeros)
    assert "decode_head.loss_decode.criterion.empty_weight" in dropped
    assert "decode_head.decoder_1.layers.0.self_attn.in_proj_weight" in dropped
    assert converted["backbone.visual_prompts.embeddings"].shape == (12, 10, 768)
    assert converted["backbone.clip.module.positional_embedding"].shape == (1025, 768)
    trained = [v for n, v in converted.items() if "clip" not in n and v.dtype == torch.float32]
    assert sum(value.numel() for value in trained) == 8_039_168


def test_what_the_file_says_besides(state: dict, tmp_path: Path) -> None:
    history = HistoryBuffer([1.0], [1])
    meta = dict(CLASSES=["a", "b"], PALETTE=np.eye(3), log=history, config=NAMED["zegclip"])
    source = save(tmp_path / "voc.pth", state, **meta)
    report = convert_authors_checkpoint(source, tmp_path / "ours.pth")
    assert set(report.used) | set(report.dropped) == set(state)
    made = {f"neck.text.{name}" for name in ("embeddings", "vocabulary", "fingerprint")}
    assert set(report.missed) == made
    assert report.method == "ZegCLIP"
    result = read_checkpoint(tmp_path / "ours.pth")
    assert result["meta"]["dataset_meta"]["classes"] == ("a", "b")


@pytest.mark.parametrize(
    "name",
    [
        "backbone.class_embedding",
        "backbone.prompt_embeddings",
        "backbone.deep_prompt_embeddings",
        "backbone.transformer.resblocks.1.mlp.c_fc.weight",
        "decode_head.decoder_1.layers.2.multihead_attn.k.bias",
        "decode_head.q_proj.weight",
    ],
)
def test_missing_or_misshapen_tensors_are_named(name: str, state: dict, tmp_path: Path) -> None:
    tensor = state.pop(name)
    target = tmp_path / "ours.pth"
    with pytest.raises(ValueError, match=rf"authors\.pth: .*{name}.* missing"):
        convert_authors_checkpoint(save(tmp_path / "authors.pth", state), target)
    for other in (tensor[..., :-1], tensor.flatten()[None, None, None]):
        with pytest.raises(ValueError, match=name):
            convert_authors_checkpoint(
                save(tmp_path / "authors.pth", {**state, name: other}), target
            )
    assert not target.exists()


def test_unused_tensors_may_be_missing(state: dict, tmp_path: Path) -> None:
    kept = {name: value for name, value in state.items() if ".self_attn." not in name}
    report = convert_authors_checkpoint(save(tmp_path / "authors.pth", kept), tmp_path / "o.pth")
    assert len(report.dropped) < len(state) - len(report.used)


def test_unexpected_tensors_are_named(state: dict, tmp_path: Path) -> None:
    state["backbone.adapter.weight"] = torch.zeros(3)
    state["decode_head.decoder_1.layers.0.linear3.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"backbone\.adapter\.weight .*linear3"):
        convert_authors_checkpoint(save(tmp_path / "authors.pth", state), tmp_path / "o.pth")


def test_positions_must_be_a_square(state: dict, tmp_path: Path) -> None:
    state["backbone.positional_embedding"] = state["backbone.positional_embedding"][:-1]
    with pytest.raises(ValueError, match=r"positional_embedding.*grid"):
        convert_authors_checkpoint(save(tmp_path / "authors.pth", state), tmp_path / "o.pth")


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        convert_authors_checkpoint(tmp_path / "nothing.pth", tmp_path / "o.pth")
    torch.save({"model": 1}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth .*`state_dict`"):
        convert_authors_checkpoint(tmp_path / "other.pth", tmp_path / "o.pth")
    with pytest.raises(ValueError, match=r"other\.pth "):
        convert_authors_checkpoint(tmp_path / "other.pth", tmp_path / "other.pth")
    torch.save({"state_dict": {}, "meta": {"hook": Path.touch}}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth .*refused"):
        convert_authors_checkpoint(tmp_path / "evil.pth", tmp_path / "o.pth")


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: Path) -> None:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name="__main__")


def test_command_line(
    state: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    source = save(tmp_path / "authors.pth", state)
    run_tool(monkeypatch, source, tmp_path / "o.pth")
    assert (tmp_path / "o.pth").is_file()
    del state["backbone.proj"]
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, save(source, state), tmp_path / "p.pth")
    assert "backbone.proj " in capsys.readouterr().err
