"""The benchmark over rows and seeds, whole, again and after having been killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mmengine.runner import IterBasedTrainLoop, Runner

from tests.helpers.run_tools import run_tool, start_tool
from tests.helpers.shapes_run import tiny_options

TOOL = "shapes/run_benchmark"


def arguments(work_dir: Path, *rows: str, seeds: tuple[int, ...] = (0, 1)) -> list[object]:
    return ["--rows", *rows, "--seeds", *seeds, "--work-dir", work_dir, *tiny_options()]


def numbers(work_dir: Path) -> Any:
    """The table without what depends on the clock."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k != "seconds"}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    return timeless(json.loads((work_dir / "table.json").read_text()))


FEW = ["training_free", "otseg", "otseg_plus", "supervised"]
OTHERS = ["zegclip", "softmax", "mps_only", "zegot", "one_prompt", "no_visual_prompts"]


@pytest.mark.parametrize(
    "rows", [FEW, pytest.param([*FEW, *OTHERS], marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_rows(rows: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tool(TOOL, *arguments(tmp_path, *rows))
    report = json.loads((tmp_path / "table.json").read_text())
    assert list(report["table"]) == rows
    assert [len(runs) for runs in report["runs"].values()] == [1] + (len(rows) - 1) * [2]
    for name, row in report["table"].items():
        tests = [run["test"] for run in report["runs"][name]]
        mean = sum(test["calibrated"]["hIoU"] for test in tests) / len(tests)
        assert row["calibrated"]["hIoU"]["mean"] == pytest.approx(mean)
        assert (row["seconds"]["mean"] > 0) == (name != "training_free")
        for test in tests:
            assert test["none"]["seen_bias"] == 0 and test["paper"]["seen_bias"] == 0.1
    assert not (tmp_path / "otseg_plus" / "seed_0" / "last_checkpoint").exists()
    text = (tmp_path / "table.md").read_text()
    assert text.count("| OTSeg+ |") == 3 and "mIoU(U)" in text

    def refuse(self: Runner) -> None:
        raise AssertionError("what is finished must not run again")

    for method in ("train", "val", "test"):
        monkeypatch.setattr(Runner, method, refuse)
    run_tool(TOOL, *arguments(tmp_path, *rows))
    assert json.loads((tmp_path / "table.json").read_text()) == report


def test_learning_curve(tmp_path: Path) -> None:
    rows = ["training_free", "mps_only"]
    run_tool(
        TOOL,
        *arguments(tmp_path, *rows, seeds=(0,))[: -len(tiny_options())],
        "--iterations",
        2,
        3,
        *tiny_options(),
    )
    report = json.loads((tmp_path / "table.json").read_text())
    assert list(report["table"]) == ["training_free", "mps_only@2", "mps_only@3"]
    assert (tmp_path / "3_iterations" / "mps_only" / "seed_0" / "iter_3.pth").is_file()
    short, long = (report["table"][f"mps_only@{n}"]["none"] for n in (2, 3))
    assert short != long
    assert "| MPS map only, 3 iterations |" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_killed_twice_it_ends_in_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_tool(TOOL, *arguments(whole, "otseg", "otseg_plus"))
    run_iter, validate = IterBasedTrainLoop.run_iter, Runner.val

    def killed_in_training(self: IterBasedTrainLoop, batch: Any) -> None:
        if self.iter == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        run_iter(self, batch)

    def killed_in_validation(self: Runner) -> dict:
        if "seed_1" in self.work_dir:
            os.kill(os.getpid(), signal.SIGKILL)
        return validate(self)

    for owner, name, deadly in (
        (IterBasedTrainLoop, "run_iter", killed_in_training),
        (Runner, "val", killed_in_validation),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, deadly)
            process = start_tool(TOOL, *arguments(killed, "otseg", "otseg_plus"))
            process.join(120)
            assert process.exitcode == -signal.SIGKILL
    assert not (killed / "table.json").exists()
    assert (killed / "otseg" / "seed_0" / "iter_2.pth").is_file()
    run_tool(TOOL, *arguments(killed, "otseg", "otseg_plus"))
    assert numbers(killed) == numbers(whole)
    logs = [file.read_text() for file in (killed / "otseg" / "seed_0").glob("*/*.log")]
    assert any("resumed" in log for log in logs)


def test_runs_of_other_settings_are_not_taken_for_these(tmp_path: Path) -> None:
    run_tool(TOOL, *arguments(tmp_path, "mps_only", seeds=(0,)))
    changed = [*arguments(tmp_path, "mps_only", seeds=(0,)), "train_cfg.max_iters=3"]
    with pytest.raises(ValueError, match="--work-dir"):
        run_tool(TOOL, *changed)
