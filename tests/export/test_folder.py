"""Exported folders against the models they were made from, and their tokenizer."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import DATASETS, MODELS
from open_clip.tokenizer import get_clean_fn

from mmseg_otseg.demo.samples import included_model
from mmseg_otseg.errors import UserError
from mmseg_otseg.export import check, export_folder, folder
from mmseg_otseg.export.onnx_files import cleaning, fast_tokenizer, quantize
from mmseg_otseg.inference import OTSegInferencer, OTSegRuntime, copy_with_classes
from mmseg_otseg.inference.exported import clean_text
from tests.helpers.exported import Exported, exported, needs_torch, small_model
from tests.helpers.small_clips import FEATURE_MAPS, VITS, clip_of, loud, make_towers_small
from tests.helpers.small_configs import small

# A tower of each kind of text encoder is exported with it; one kind is enough for the others.
WITH_TEXT = ("EVA02-L-14", "MobileCLIP2-L-14", "ViT-B-16-SigLIP2")
SENTENCES = (
    "a photo of a cat.",
    "A  Photo of\ta traffic-light, isn't it?",
    "potted plant",
    "3 dining tables (2021)",
    "smörgåsbord café naïve",
    "猫と犬 кошка",
    "it's the dog's 100% new! tv/monitor...",
    "x" * 60,
    "\u201ccurly\u201d quotes, \u2018it\u2019s\u2019",
    "\ufb01re \uff23\uff21\uff34",  # a ligature, and letters of full width
    "cat &amp;amp; dog",
    "\u0130stanbul \u1e9e e\u0301 \u200bwide\u2003space",
    "\u00bd \u216b \u0663 \U0001f469\u200d\U0001f467 \u0345 '\u017f",
    "<end_of_text> cat",
)


def test_it_agrees_with_the_model(otseg: Exported) -> None:
    assert otseg.differences["probabilities"] < 1e-5
    assert otseg.differences["text"] < 1e-5
    other = copy.deepcopy(otseg.model)
    with torch.no_grad():
        other.neck.descriptor.linear.bias += 1
    with pytest.raises(ValueError, match="probabilities"):  # so a difference is noticed
        check.check_folder(otseg.folder, other)
    files = {path.name for path in otseg.folder.iterdir()}
    models = {"model.onnx", "text_encoder.onnx"}
    assert files == {*models, "tokenizer.json", "vocabulary.npz", "model.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("otseg/voc_512.py", None),
        ("zegot/voc_512.py", (64, 64)),
        ("zegclip/cocostuff_512.py", (64, 64)),
        ("ablations/otseg_voc_512_softmax.py", None),
        ("shapes/training_free.py", None),
    ],
)
def test_every_method(name: str, size: tuple[int, int] | None, tmp_path: Path) -> None:
    assert exported(name, tmp_path, size=size).differences["probabilities"] < 1e-4


def test_several_names_are_the_largest_of_single_ones(otseg: Exported) -> None:
    runtime = OTSegRuntime(otseg.folder)
    image = np.random.default_rng(0).integers(0, 256, (64, 90, 3), dtype=np.uint8)
    found = runtime.predict(image, runtime.vocabulary("sofa | couch | settee, cat"))
    alone = [
        runtime.predict(image, runtime.vocabulary(names))
        for names in (["sofa", "cat"], ["couch", "cat"], ["settee", "cat"])
    ]
    # A class is seen if its first name was.
    bias = np.float32(runtime.seen_bias * runtime.known.seen[runtime.known.names.index("sofa")])
    for values in alone[1:]:
        values[0] -= bias
    np.testing.assert_allclose(found, np.max(alone, axis=0), atol=1e-5)


@needs_torch
def test_training_free(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bicubic"):
        exported("training_free/names.py", tmp_path, size=None)
    result = exported("training_free/names.py", tmp_path, size=(64, 64))
    runtime = OTSegRuntime(result.folder)
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)  # not resized
    image = image.repeat(16, 0).repeat(16, 1)
    result.cfg.model.test_cfg.refine = False
    inferencer = OTSegInferencer(result.cfg, device="cpu")
    for classes in (None, "cat, sofa | couch, wall"):
        theirs, ours = inferencer.inspect(image[..., ::-1], classes), runtime.vocabulary(classes)
        np.testing.assert_allclose(runtime.predict(image, ours), theirs.values, atol=1e-4)
        assert ours.names == theirs.names


def test_masks_are_those_of_the_inferencer(otseg: Exported, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = coarse.repeat(20, 0).repeat(20, 1)  # larger than a window once it is resized
    torch.save({"state_dict": otseg.model.state_dict(), "meta": {}}, tmp_path / "w.pth")
    inferencer = OTSegInferencer(otseg.cfg, str(tmp_path / "w.pth"), device="cpu")
    runtime = OTSegRuntime(otseg.folder)
    for options in ({}, {"classes": "cat, sofa, wall"}, {"none_below": 0.5}):
        theirs = inferencer(image, **options)
        ours = runtime(image, **options)
        assert ours["classes"] == theirs["classes"]
        assert (ours["predictions"][0] == theirs["predictions"][0]).mean() > 0.99


def test_an_export_that_fails_leaves_nothing(
    otseg: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("differs")

    monkeypatch.setattr(folder, "write_graph", fail)
    with pytest.raises(ValueError, match="differs"):
        export_folder(otseg.model, otseg.cfg, tmp_path / "out", size=(64, 64))
    assert not list(tmp_path.iterdir())


@needs_torch
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": (64, 60)}, "16"),
        ({"size": (128, 128)}, "crop_size"),
        ({"size": (64, 64), "mode": "whole"}, "--dynamic"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], word: str, tmp_path: Path) -> None:
    model, cfg = small_model("otseg/voc_512.py", tmp_path)
    options = dict(options)
    model.test_cfg.mode = options.pop("mode", "slide")
    with pytest.raises(ValueError, match=word):
        export_folder(model, cfg, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@needs_torch
def test_what_cannot_be_exported(tmp_path: Path) -> None:
    model, cfg = small_model("otseg/voc_512.py", tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(FileExistsError, match="there"):
        export_folder(model, cfg, tmp_path / "there")
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type="RandomFlip", prob=1.0))
    with pytest.raises(ValueError, match="RandomFlip"):
        export_folder(model, cfg, tmp_path / "out")
    model.backbone.clip.bfloat16()
    with pytest.raises(ValueError, match="precision"):
        export_folder(model, cfg, tmp_path / "out", size=(64, 64))


def test_the_metadata_says_what_a_program_needs(otseg: Exported) -> None:
    metadata = json.loads((otseg.folder / "model.json").read_text())
    assert metadata["windows"] == {"size": [64, 64], "stride": [48, 48]}
    assert metadata["resize"] == {"scale": [256, 64], "keep_ratio": True}
    assert metadata["seen_bias"] == 0.1
    pixels = otseg.cfg.model.data_preprocessor
    assert metadata["mean"] == pytest.approx(pixels.mean)
    assert metadata["std"] == pytest.approx(pixels.std)
    assert len(metadata["prompts"]["templates"]) == 6
    fingerprint = otseg.model.backbone.clip.fingerprint
    assert metadata["clip"] == bytes(fingerprint.tolist()).hex()


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("name", [*VITS, *FEATURE_MAPS])
def test_every_family(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_towers_small(monkeypatch)
    cfg, clip = small("otseg/voc_512.py", tmp_path), clip_of(name)
    cfg.model.clip = ConfigDict(clip)
    if name in FEATURE_MAPS:
        cfg.model.backbone.visual_prompts = None
    if name not in WITH_TEXT:
        width = clip["model"]["embed_dim"]
        np.save(tmp_path / "text.npy", np.random.default_rng(0).normal(size=(20, 6, width)))
        cfg.model.neck.text = str(tmp_path / "text.npy")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    loud(model.backbone)
    differences = export_folder(copy_with_classes(model), cfg, tmp_path / "exported")
    assert differences["text"] < 1e-5
    assert differences["probabilities"] < 1e-4


@needs_torch
@pytest.mark.slow
def test_the_shipped_model_in_float32_and_in_8_bits(tmp_path: Path) -> None:
    inferencer = OTSegInferencer(*included_model(), "cpu")
    dataset = DATASETS.build(inferencer.cfg.test_dataloader.dataset)
    images = [np.moveaxis(dataset[index]["inputs"].numpy(), 0, 2) for index in range(100)]
    images = [image[..., ::-1] for image in images]
    expected = [inferencer.predict(image, inferencer.model).argmax(0) for image in images]
    export_folder(inferencer.model, inferencer.cfg, tmp_path / "fp32")
    shutil.copytree(tmp_path / "fp32", tmp_path / "int8")
    quantize(tmp_path / "int8" / "model.onnx")
    for name, share in (("fp32", 0.999), ("int8", 0.97)):
        runtime = OTSegRuntime(tmp_path / name, threads=1)
        found = [runtime.predict(image, runtime.known).argmax(0) for image in images]
        assert np.mean(np.stack(found) == np.stack(expected)) > share


def test_it_gives_the_tokens_of_open_clip() -> None:
    slow = open_clip.get_tokenizer("ViT-B-16")
    fast = fast_tokenizer(slow)
    for sentence in SENTENCES:
        expected = [slow.sot_token_id, *slow.encode(sentence), slow.eot_token_id]
        assert fast.encode(clean_text(sentence, cleaning(slow))).ids == expected, sentence


@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
def test_text_is_cleaned_as_by_open_clip(clean: str) -> None:
    for sentence in (*SENTENCES, "a_b, C-d!  (e)"):
        assert clean_text(sentence, clean) == get_clean_fn(clean)(sentence)


def test_a_sentence_that_is_too_long_keeps_its_end_token() -> None:
    slow = open_clip.get_tokenizer("ViT-B-16")
    ids = fast_tokenizer(slow).encode("dog " * 200).ids
    assert len(ids) == slow.context_length
    assert ids == slow(["dog " * 200])[0].tolist()


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(UserError, match="str"):
        fast_tokenizer("bpe")
