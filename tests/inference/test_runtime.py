from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from mmseg_otseg.inference import OTSegRuntime
from mmseg_otseg.inference.__main__ import main
from mmseg_otseg.inference.runtime import _resized
from tests.helpers.exported import Exported
from tests.helpers.paths import ROOT

HEAVY = ("torch", "torchvision", "mmengine", "mmcv", "mmseg", "open_clip", "cv2")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_text("no image")
    return folder


def test_it_needs_neither_torch_nor_mmseg(otseg: Exported, photos: Path, tmp_path: Path) -> None:
    script = (
        f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\n"
        "from mmseg_otseg.inference.__main__ import main\nmain(sys.argv[1:])\n"
        "import mmseg_otseg\ntry: mmseg_otseg.models\n"
        "except ImportError as error: assert 'onedl' in str(error)\nelse: sys.exit('models')"
    )
    arguments = [otseg.folder, photos, "--classes", "cat, sofa", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out" / "pred").iterdir()} == {"a.png", "b.png"}
    assert {path.name for path in (tmp_path / "out" / "vis").iterdir()} == {"a.jpg", "b.jpg"}
    assert "broken.png" in done.stderr
    assert np.asarray(Image.open(tmp_path / "out" / "pred" / "a.png")).shape == (70, 90)


@pytest.mark.slow
def test_in_an_environment_with_four_packages(
    otseg: Exported, photos: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    packages = ["numpy", "pillow", "onnxruntime", "tokenizers"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    copy = tmp_path / "site" / "mmseg_otseg"
    shutil.copytree(ROOT / "mmseg_otseg", copy)
    arguments = [otseg.folder, photos, "--classes", "cat, sofa", "--out", tmp_path / "out"]
    command = [python, "-m", "mmseg_otseg.inference", *arguments]
    subprocess.run(command, cwd=copy.parent, check=True)
    assert (tmp_path / "out" / "pred" / "a.png").is_file()


def test_classes_of_a_call(otseg: Exported) -> None:
    runtime = OTSegRuntime(otseg.folder)
    assert runtime.vocabulary().names == otseg.model.neck.text.split.classes
    vocabulary = runtime.vocabulary(["cat", "unicorn"])
    assert vocabulary.seen.tolist() == [True, False]  # VOC has labels of cats
    assert vocabulary.text.shape == (2, 6, 32)
    assert runtime.vocabulary(["cat", "unicorn"]) is vocabulary
    for names, word in (
        ([], r"names .*\(\)"),
        (["a", "a"], "names a are"),
        ([" "], r"names .*\(' ',\)"),
    ):
        with pytest.raises(ValueError, match=word):
            runtime.vocabulary(names)
    with pytest.raises(ValueError, match=r"very .* 97 "):
        runtime.vocabulary(["very " * 90])


def test_the_seen_bias_can_be_chosen(otseg: Exported) -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    with_bias, without = (OTSegRuntime(otseg.folder, seen_bias=bias) for bias in (None, 0.0))
    difference = without.run(image, without.known) - with_bias.run(image, with_bias.known)
    seen = with_bias.known.seen
    np.testing.assert_allclose(difference[0, seen], 0.1, atol=1e-6)
    np.testing.assert_allclose(difference[0, ~seen], 0.0, atol=1e-6)


@pytest.mark.parametrize("name", ["model.onnx", "vocabulary.npz", "model.json"])
def test_missing_and_damaged_files(otseg: Exported, name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(otseg.folder, copy)
    (copy / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=name):
        OTSegRuntime(copy)
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        OTSegRuntime(copy)


def test_a_vocabulary_of_another_clip(otseg: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(otseg.folder, copy)
    with np.load(copy / "vocabulary.npz") as file:
        arrays = dict(file)
    np.savez(copy / "vocabulary.npz", **{**arrays, "clip": np.array("00" * 32)})
    with pytest.raises(ValueError, match=r"vocabulary\.npz .*fingerprint"):
        OTSegRuntime(copy)


def changed(otseg: Exported, folder: Path, **arrays: np.ndarray) -> Path:
    """A copy of the exported folder with another vocabulary."""
    copy = folder / "copy"
    shutil.copytree(otseg.folder, copy)
    with np.load(copy / "vocabulary.npz") as file:
        np.savez(copy / "vocabulary.npz", **{**file, **arrays})
    return copy


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, "deleted") for key in ("clip", "patch", "windows", "prompts", "align_corners")),
        ("seen_bias", float("nan")),
        ("seen_bias", "0.1"),
        ("clip", 5),
        ("patch", [0, 0]),
        ("size", [10**6, 10**6]),
        ("patch", [2**16, 2**16]),  # images would be made as large as that
        ("size", [2**16, 2**16]),
        ("windows", {"size": [64, 64], "stride": [0, 0]}),
        ("windows", {"size": [64, 64], "stride": [65, 64]}),
        ("prompts", {}),
    ],
)
def test_metadata_that_makes_no_sense(
    key: str, value: object, otseg: Exported, tmp_path: Path
) -> None:
    copy = changed(otseg, tmp_path)
    metadata = json.loads((copy / "model.json").read_text())
    del metadata[key]
    if value != "deleted":
        metadata[key] = value
    (copy / "model.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=rf"model\.json .*({key}|templates)"):
        OTSegRuntime(copy)


def test_templates_get_the_name_and_nothing_else(otseg: Exported, tmp_path: Path) -> None:
    copy = changed(otseg, tmp_path)
    whole = (copy / "model.json").read_text()
    for template in ("a photo", "{} {}", "{:>9999999999}", "{.__class__}"):
        (copy / "model.json").write_text(whole.replace("a photo of a {}.", template))
        with pytest.raises(ValueError, match="prompts"):
            OTSegRuntime(copy)
    (copy / "model.json").write_text(whole.replace("a photo of a {}.", "{} {:>9999999999}"))
    assert OTSegRuntime(copy).vocabulary(["cat {0}"]).names == ("cat {0}",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", np.full((20, 6, 32), np.nan, np.float32)),
        ("text", np.array("x")),
        ("names", np.array(["a", "b"])),
        ("text", np.zeros((20, 0, 32), np.float32)),
        ("text", np.array([print] * 20)),
        ("names", np.array("a")),
        ("names", np.array(["a"] * 20)),
        ("names", np.array([f"\x1b[31m{index}" for index in range(20)])),
        ("seen", np.zeros(3, bool)),
        ("palette", np.zeros((2, 3), np.uint8)),
        ("palette", np.full((20, 3), np.nan)),
    ],
)
def test_arrays_that_do_not_fit(
    name: str, value: np.ndarray, otseg: Exported, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"vocabulary\.npz.*({name}|allow_pickle)"):
        OTSegRuntime(changed(otseg, tmp_path, **{name: value}))


def test_a_compressed_vocabulary(otseg: Exported, tmp_path: Path) -> None:
    copy = changed(otseg, tmp_path)
    with np.load(copy / "vocabulary.npz") as file:
        np.savez_compressed(copy / "vocabulary.npz", **file)
    with pytest.raises(ValueError, match=r"vocabulary\.npz.*compressed"):
        OTSegRuntime(copy)


@pytest.mark.parametrize("name", ["tokenizer.json", "text_encoder.onnx"])
def test_a_text_encoder_that_is_missing_or_damaged(
    name: str, otseg: Exported, tmp_path: Path
) -> None:
    copy = changed(otseg, tmp_path)
    (copy / name).write_text("{}")
    with pytest.raises(ValueError, match=name):
        OTSegRuntime(copy).vocabulary(["cat"])
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        OTSegRuntime(copy).vocabulary(["cat"])


@pytest.mark.parametrize("location", ["/dev/zero", "../outside", "link", "missing"])
def test_weights_outside_of_the_folder(location: str, otseg: Exported, tmp_path: Path) -> None:
    copy = changed(otseg, tmp_path)
    (tmp_path / "outside").write_bytes(bytes(2**20))
    (copy / "link").symlink_to(tmp_path / "outside")
    graph = onnx.load(copy / "model.onnx")
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (copy / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match=r"model\.onnx.*[Ee]xternal"):
        OTSegRuntime(copy)


def test_files_that_do_not_belong_together(otseg: Exported, tmp_path: Path) -> None:
    text = OTSegRuntime(otseg.folder).known.text
    copy = changed(otseg, tmp_path, text=text[:, :3])
    with pytest.raises(ValueError, match=r"model\.onnx .*text"):
        OTSegRuntime(copy)(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"text_encoder\.onnx .*vocabulary\.npz"):
        OTSegRuntime(copy).vocabulary(["cat"])
    shutil.copy(copy / "model.onnx", copy / "text_encoder.onnx")
    with pytest.raises(ValueError, match=r"text_encoder\.onnx .*seen_bias"):
        OTSegRuntime(copy).vocabulary(["cat"])


@pytest.mark.parametrize(
    ("part", "value", "word"),
    [
        ("pre_tokenizer", {"pattern": {"Regex": "(a+)+$"}}, "tokenizer.json"),  # without an end
        ("model", {"vocab": {"cat</w>": 10**8}}, "text_encoder.onnx"),
    ],
)
def test_a_hostile_tokenizer(
    part: str, value: dict, word: str, otseg: Exported, tmp_path: Path
) -> None:
    copy = changed(otseg, tmp_path)
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    if part == "model":
        tokenizer[part]["vocab"].update(value["vocab"])
    else:
        tokenizer[part] = {"type": "Split", "behavior": "Removed", "invert": True, **value}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=word):
        OTSegRuntime(copy).vocabulary(["cat", "a" * 40 + "b"])


def test_a_bias_that_is_no_number(otseg: Exported) -> None:
    with pytest.raises(ValueError, match="bias"):
        OTSegRuntime(otseg.folder, seen_bias=float("nan"))


def test_the_command_line_tells_errors_in_a_line(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(SystemExit, match=r"model\.json"):
        main([str(tmp_path), str(photos), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("size", "scale", "keep_ratio", "expected"),
    [
        ((375, 500), (2048, 512), True, (512, 683)),
        ((100, 1000), (2048, 512), True, (205, 2048)),
        ((30, 40), (64, 48), False, (48, 64)),
    ],
)
def test_images_are_resized_as_mmseg_does(
    size: tuple[int, int], scale: tuple[int, int], keep_ratio: bool, expected: tuple[int, int]
) -> None:
    image = np.zeros((*size, 3), np.uint8)
    how = {"scale": list(scale), "keep_ratio": keep_ratio}
    assert _resized(image, how).shape[:2] == expected


def test_an_interrupt_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmseg_otseg.inference.__main__.find_images", interrupt)
    with pytest.raises(SystemExit, match="interrupted"):
        main([str(tmp_path), str(tmp_path), "--out", str(tmp_path / "out")])
