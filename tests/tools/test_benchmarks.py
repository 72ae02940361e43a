"""The benchmark tool at very small sizes: it runs, and both sides of each case agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.run_tools import run_tool

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


@pytest.mark.slow
def test_the_table_has_a_row_for_every_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ot")
    run_tool("benchmarks/run", "--tiny", "--repeats", 1, "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    table = capsys.readouterr().out
    for start in ("sinkhorn VOC", "sinkhorn COCO-Stuff", "ZegOT", *LIMITS):
        assert any(row["case"].startswith(start) for row in rows)
    for row in rows:
        assert f"| {row['case']} |" in table and row["seconds"]["ours"] > 0
        assert row["times_faster"] == row["seconds"]["other"] / row["seconds"]["ours"]
        limits = next((v for start, v in LIMITS.items() if row["case"].startswith(start)), {})
        assert all(row["difference"][name] <= limit for name, limit in limits.items()), row
