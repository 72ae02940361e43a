from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.inference import OTSegRuntime, copy_with_classes
from mmseg_otseg.inference.runtime import _resized
from mmseg_otseg.ops import refine
from tests.helpers.exported import Exported
from tests.helpers.paths import ROOT

# All but numpy, Pillow, onnxruntime, tokenizers, ftfy, and what these bring.
HEAVY = (
    *("torch", "torchvision", "mmengine", "mmcv", "mmseg", "open_clip", "cv2", "scipy", "timm"),
    *("matplotlib", "rich", "prettytable", "safetensors", "pycocotools"),
)


def test_it_needs_neither_torch_nor_mmseg(otseg: Exported, images: Path, tmp_path: Path) -> None:
    script = (
        f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\n"
        "from mmseg_otseg_cli.segment import main\nmain()\n"
        "import mmseg_otseg\ntry: mmseg_otseg.models\n"
        "except ImportError as error: assert 'onedl' in str(error)\nelse: sys.exit('models')"
    )
    arguments = [images, "--model", otseg.folder, "--classes", "cat, sofa", "--out"]
    command = [sys.executable, "-c", script, *map(str, arguments), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/*/*")}
    assert written == {name for i in range(3) for name in (f"pred/{i}.png", f"vis/{i}.jpg")}
    assert "1b.jpg" in done.stderr
    assert np.asarray(Image.open(tmp_path / "out" / "pred" / "0.png")).shape == (64, 80)


def test_classes_of_a_call(otseg: Exported) -> None:
    runtime = OTSegRuntime(otseg.folder)
    assert runtime.vocabulary().names == otseg.model.neck.text.split.classes
    vocabulary = runtime.vocabulary(["cat", "unicorn"])
    assert vocabulary.seen.tolist() == [True, False]  # VOC has labels of cats
    assert vocabulary.text.shape == (2, 6, 32)
    assert runtime.vocabulary(["cat", "unicorn"]) is vocabulary
    assert runtime.vocabulary("cat, unicorn") is vocabulary
    with pytest.raises(UserError, match="mmseg"):
        runtime.vocabulary("voc")


def test_refined_as_in_torch(otseg: Exported) -> None:
    runtime = OTSegRuntime(otseg.folder)
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    vocabulary = runtime.vocabulary(["cat", "sofa"])
    plain, refined = (runtime.predict(image, vocabulary, how) for how in (False, True))
    pixels = torch.from_numpy(_resized(image, runtime.metadata["resize"]))
    expected = refine(torch.from_numpy(plain)[None], pixels.permute(2, 0, 1)[None].float())[0]
    np.testing.assert_allclose(refined, expected, atol=1e-5)
    assert np.abs(refined - plain).max() > 1e-4


def test_as_many_tokens_as_in_torch(otseg: Exported) -> None:
    runtime = OTSegRuntime(otseg.folder)
    limit = runtime.metadata["prompts"]["max_tokens"]
    longest = " ".join(["very"] * (limit - 7))  # beside "a photo of medium", a period and two more
    found = runtime.vocabulary([longest]).text
    expected = copy_with_classes(otseg.model, [longest]).neck.text().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for vocabulary in (runtime.vocabulary, lambda names: copy_with_classes(otseg.model, names)):
        with pytest.raises(UserError, match="shorter"):
            vocabulary([f"very {longest}"])


def test_the_seen_bias_can_be_chosen(otseg: Exported) -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    with_bias, without = (OTSegRuntime(otseg.folder, seen_bias=bias) for bias in (None, 0.0))
    difference = without.run(image, without.known) - with_bias.run(image, with_bias.known)
    seen = with_bias.known.seen
    np.testing.assert_allclose(difference[0, seen], 0.1, atol=1e-6)
    np.testing.assert_allclose(difference[0, ~seen], 0.0, atol=1e-6)


def test_foreign_files(otseg: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(otseg.folder, copy)
    with pytest.raises(FileNotFoundError, match="no exported model"):
        OTSegRuntime(tmp_path)
    metadata = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**metadata, "format": 3}))
    with pytest.raises(UserError, match="layout 3"):
        OTSegRuntime(copy)
    (copy / "model.json").write_text(json.dumps(metadata))
    with np.load(copy / "vocabulary.npz") as file:
        arrays = dict(file)
    np.savez(copy / "vocabulary.npz", **{**arrays, "clip": np.array("00" * 32)})
    with pytest.raises(ValueError, match=r"vocabulary\.npz .*fingerprint"):
        OTSegRuntime(copy)
    shutil.copy(otseg.folder / "vocabulary.npz", copy)
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.onnx cannot be loaded"):
        OTSegRuntime(copy)


def test_a_narrow_image_does_not_fill_a_window(otseg: Exported) -> None:
    """In torch it goes through the model as it is, which a file of a fixed size cannot do."""
    runtime = OTSegRuntime(otseg.folder)
    with pytest.raises(UserError, match="--dynamic"):
        runtime.predict(np.zeros((20, 400, 3), np.uint8), runtime.known)
    images = [np.zeros((20, 400, 3), np.uint8), np.zeros((64, 90, 3), np.uint8)]
    assert runtime(images)["skipped"] == ["array 0"]


def test_other_processes_get_it(otseg: Exported) -> None:
    runtime = OTSegRuntime(otseg.folder, threads=1, seen_bias=0.2)
    copy = pickle.loads(pickle.dumps(runtime))  # what `spawn` does
    assert copy.seen_bias == 0.2 and copy.threads == 1
    image = np.zeros((1, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(copy.run(image, copy.known), runtime.run(image, runtime.known))
