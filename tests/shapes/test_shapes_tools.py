"""The notebook, the pre-training of the tiny CLIP, the benchmark over rows and seeds."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from statistics import fmean

import open_clip
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES
from mmseg_otseg.demo.samples import included_model
from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.models.text import OTSEG_6
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import run_tool
from tests.helpers.shapes_run import tiny_options
from tools.shapes import pretrain_clip

ROWS = ("training_free", "otseg", "otseg_plus")
TOUR = ROOT / "configs" / "shapes" / "tour.ipynb"


@pytest.fixture
def config():
    config = Config.fromfile(ROOT / "configs/shapes/clip/shapes_clip.py")
    config.merge_from_dict(
        {
            "clip.model.vision_cfg": dict(
                image_size=64, patch_size=16, width=32, layers=1, head_width=16
            ),
            "clip.model.embed_dim": 16,
            "clip.model.text_cfg.width": 16,
            "clip.model.text_cfg.layers": 1,
            "pretrain": dict(steps=6, batch_size=8, warmup=2, single_steps=2),
        }
    )
    return config


def test_a_stopped_run_ends_in_the_same_file_which_loads_as_every_clip(config, tmp_path):
    path = pretrain_clip.train(config, tmp_path / "whole", "cpu")
    assert pretrain_clip.train(config, tmp_path / "parts", "cpu", stop_at=3) is None
    assert pretrain_clip.train(config, tmp_path / "parts", "cpu").read_bytes() == path.read_bytes()
    tensors = load_file(path)
    ids, rows = tensors["token_embedding.ids"], tensors["token_embedding.rows"]
    assert ids.tolist() == sorted(set(ids.tolist())) and len(ids) == len(rows) < 50
    clip = load_clip(config.clip.model.to_dict(), str(path))
    assert clip.token_embedding.weight.shape == (49408, 16)
    assert torch.equal(clip.token_embedding.weight[ids], rows.float())
    words = open_clip.get_tokenizer("ViT-B-32")(
        [t.format(n) for t in OTSEG_6 for n in SHAPES_CLASSES], context_length=32
    )
    assert set(words.unique().tolist()) <= set(ids.tolist())  # no prompt uses an untrained row


def test_contrastive_loss_spreads_over_true_captions():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    positive = torch.tensor([[True, True, False], [False, False, False]])
    rows = -(logits[0].log_softmax(0)[:2].mean())  # the second row has no positive
    columns = -(logits.log_softmax(0)[0, :2].mean())
    expected = 0.5 * (rows + columns)
    torch.testing.assert_close(pretrain_clip.contrastive(logits, positive), expected)


def benchmark(work_dir: Path, *options: object) -> None:
    rows = ("--rows", *ROWS, "--seeds", 0, 1, "--work-dir", work_dir)
    run_tool("shapes/run_benchmark", *rows, *tiny_options(), *options)


def test_rows(tmp_path: Path) -> None:
    benchmark(tmp_path)
    results = sorted(tmp_path.glob("*/seed_*/evaluation/bias_chosen.json"))
    names = [file.parts[-4] for file in results]
    assert names == ["otseg", "otseg", "otseg_plus", "otseg_plus", "training_free"]
    text = (tmp_path / "table.md").read_text()
    mean = fmean(json.loads(file.read_text())["mIoU_S"] for file in results[:2])
    assert f"| OTSeg | {mean:.1f} ±" in text and "± " not in text.split("CLIP map")[1][:30]

    trained = tmp_path / "otseg" / "seed_0" / "iter_4.pth"
    written = {file: file.stat().st_mtime_ns for file in (trained, *results)}
    results[0].unlink()  # as if killed before it was written
    benchmark(tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    assert [f for f, time in written.items() if f.stat().st_mtime_ns != time] == [results[0]]

    benchmark(tmp_path, "--bias", 0.1)
    assert (tmp_path / "table.md").read_text().count("| 0.100 ") == len(ROWS)
    with pytest.raises(ValueError, match="--work-dir"):  # a run of other settings is there
        benchmark(tmp_path, "--cfg-options", "train_cfg.max_iters=3")


def test_it_is_stored_with_pictures_and_without_paths() -> None:
    text = TOUR.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert len(text) < 1_000_000
    assert not any(word in text for word in ("/home/", "/root/", "/tmp/", "\\Users\\", str(ROOT)))


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    try:
        included_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(TOUR, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=600, startup_timeout=300, kernel_name="python3", resources=folder
    ).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    drawings = [out for out in outputs if "image/png" in out.get("data", {})]
    printed = "".join(out.get("text", "") for out in outputs)
    assert len(drawings) == 3
    assert "'something blue', 'none of these')" in printed
    assert re.search(r"Iter\(train\) \[ *50/50\]", printed) and re.search(
        r"^hIoU \d", printed, re.M
    )
