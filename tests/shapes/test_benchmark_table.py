"""What the table of the benchmark says of rows whose numbers are known."""

from __future__ import annotations

from typing import Any

import pytest

from tools.shapes.benchmark_table import as_markdown, summary


def run(seed: int, unseen: float) -> dict[str, Any]:
    scores = {"mIoU_S": 2 * unseen, "mIoU_U": unseen, "hIoU": unseen}
    tests = {bias: dict(scores) for bias in ("none", "paper", "calibrated")}
    return {"seed": seed, "seconds": 3.0, "bias": 0.1 * seed, "test": tests}


@pytest.mark.parametrize(("most", "share"), [(40.0, "OTSeg 75%."), (0.0, None)])
def test_means_spreads_and_shares(most: float, share: str | None) -> None:
    results = {"otseg": [run(0, 20.0), run(1, 40.0)], "supervised": [run(0, most), run(1, most)]}
    text = as_markdown(summary(results), ["none", "calibrated"])
    assert "| OTSeg | 60.0 ± 28.3 | 30.0 ± 14.1 | 30.0 ± 14.1 | 3 |" in text
    assert "| 0.050 ± 0.071 | 3 |" in text and "2 seed(s)" in text
    assert ("Share" in text) == (share is not None) and (share or "") in text
