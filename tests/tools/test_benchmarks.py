"""The benchmark tool at very small sizes: it runs, and both sides of each case agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tools.benchmarks import run

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
        "ZegOT",
        "inference",
        "OTSeg step VOC, bf16",
        "inference VOC, bf16",
    ):
        assert any(name.startswith(start) for name in names)
    check(rows)
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in names)


@pytest.mark.slow
def test_embeddings_of_a_file_make_a_case(tmp_path: Path) -> None:
    pytest.importorskip("ot")
    text = np.random.default_rng(0).normal(size=(5, 6, 16))
    np.save(tmp_path / "names.npy", text / np.linalg.norm(text, axis=-1, keepdims=True))
    options = ("--text-embeddings", tmp_path / "names.npy", "--only", "text", "--no-memory")
    rows = run_benchmarks(tmp_path / "rows.json", *options)
    assert [row["case"] for row in rows] == ["sinkhorn text names"]
    check(rows)
