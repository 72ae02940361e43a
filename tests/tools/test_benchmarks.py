"""The benchmark tool at very small sizes: it runs, and both sides of each case agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from mmseg.registry import MODELS
from mmseg_otseg_tools.benchmarks import cases, models, run
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from mmseg_otseg.models.necks import _class_tables
from mmseg_otseg.ops.mask_loss.bilinear import bilinear_axis
from mmseg_otseg.ops.optimal_transport import solvers

# Largest difference from the other side, relative to its largest value. The gradient of the plain
# head is that of an unrolled Sinkhorn that stops early, which shows at these sizes.
LIMITS = {
    "sinkhorn": {"plan": 1e-3, "gradient from exact": 1e-3},
    "loss": {"loss": 1e-5, "gradient": 1e-4},
    "head step": {"loss": 1e-5, "gradient": 5e-3},
    "inference VOC, bf16": {"probability": 0.05},
    "inference": {"probability": 1e-4},
    "OTSeg step": {"loss": 0.05},
}


def run_benchmarks(file: Path, *arguments: object) -> list[dict]:
    run.main([*map(str, arguments), "--tiny", "--repeats", "1", "--json", str(file)])
    return json.loads(file.read_text())["rows"]


def outside_of_fakes(build: Callable[..., Any]) -> Callable[..., Any]:
    """``build``, with real tensors although fake ones are made around it."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return build(*args, **kwargs)

    return run


@pytest.mark.slow
@pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10),
    reason="before torch 2.10, moving a module to a fake GPU asks for a driver",
)
def test_every_case_can_be_made_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On fake CUDA tensors, which do not mix with those of the host; our side of inference runs."""
    monkeypatch.setattr(solvers, "ITERATIONS_PER_SYNC", 1000)  # fakes have no values to look at
    heads = {name: (outside_of_fakes(head), plain) for name, (head, plain) in cases.HEADS.items()}
    monkeypatch.setattr(cases, "HEADS", heads)
    for holder, name in ((MODELS, "build"), (models, "load_clip"), (open_clip, "tokenize")):
        monkeypatch.setattr(holder, name, outside_of_fakes(getattr(holder, name)))
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        args = run.parse_args(["--tiny", "--device", "cuda"])
        for name, build in run.all_cases(args).items():
            with FakeTensorMode(allow_non_fake_inputs=True):
                case = build()
                if name.startswith("inference"):
                    assert case.ours().device.type == "cuda"
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        bilinear_axis.cache_clear()
        _class_tables.cache_clear()


def test_an_exported_model_is_measured_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.parse_args(["--device", "cuda", "--exported", "folder"])
    assert "--exported" in capsys.readouterr().err


def check(rows: list[dict]) -> None:
    for row in rows:
        assert row["seconds"]["ours"] > 0
        assert row["times_faster"] == row["seconds"]["other"] / row["seconds"]["ours"]
        limits = next((v for start, v in LIMITS.items() if row["case"].startswith(start)), {})
        assert all(row["difference"][name] <= limit for name, limit in limits.items()), row


@pytest.mark.slow
def test_the_table_has_a_row_for_every_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run_benchmarks(tmp_path / "rows.json", "--no-memory")
    names = [row["case"] for row in rows]
    for start in (
        "sinkhorn VOC",
        "sinkhorn COCO-Stuff",
        "loss",
        "head step",
        "head step ZegCLIP",
        "ZegOT",
        "inference",
        "OTSeg step VOC, bf16",
        "inference VOC, bf16",
    ):
        assert any(name.startswith(start) for name in names)
    check(rows)
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in names)


def test_memory_is_measured_in_processes_of_its_own(tmp_path: Path) -> None:
    (row,) = run_benchmarks(tmp_path / "rows.json", "--only", "loss VOC")
    assert row["peak_mib"]["other"] > row["peak_mib"]["ours"] >= 0


def test_growth_curves(tmp_path: Path) -> None:
    rows = run_benchmarks(tmp_path / "rows.json", "--growth", "--no-memory", "--only", "prompts")
    assert [row["case"].split(", ")[1] for row in rows] == [
        f"{prompts} prompts" for prompts in (1, 2, 4, 8, 16)
    ]
    check(rows)


def test_embeddings_of_a_file_make_a_case(tmp_path: Path) -> None:
    pytest.importorskip("ot")
    text = np.random.default_rng(0).normal(size=(5, 6, 16))
    np.save(tmp_path / "names.npy", text / np.linalg.norm(text, axis=-1, keepdims=True))
    options = ("--text-embeddings", tmp_path / "names.npy", "--only", "text", "--no-memory")
    rows = run_benchmarks(tmp_path / "rows.json", *options)
    assert [row["case"] for row in rows] == ["sinkhorn text names"]
    check(rows)


@pytest.mark.slow
def test_an_exported_model_makes_a_case(tmp_path: Path) -> None:
    from tests.helpers.exported import TOO_OLD  # or skips, where packages are missing

    if TOO_OLD:
        pytest.skip("exporting needs a newer torch")
    options = ("--exported", tmp_path / "exported", "--only", "exported", "--no-memory")
    (row,) = run_benchmarks(tmp_path / "rows.json", *options)
    assert row["case"] == "inference exported, VOC" and (tmp_path / "exported").is_dir()
    check([row])
