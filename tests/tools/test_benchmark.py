"""One table of all open-vocabulary data sets that are here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg_otseg_cli import benchmark
from mmseg_otseg_cli.errors import CommandError
from mmseg_otseg_cli.open_vocabulary import data_configs

from mmseg_otseg.engine import resolve
from mmseg_otseg.structures import ClassSplit
from tests.helpers.open_vocabulary import write_layout
from tests.helpers.run_tools import last_metrics, run_processes, run_tool
from tests.helpers.small_configs import small

SENTENCE = ["a photo of a {}."]  # few sentences are soon encoded


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two of the data sets, in which commands run; what VOC has makes three."""
    for name in ("voc20", "ade20k_150"):
        write_layout(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def free(folder: Path) -> Path:
    """The config of a training-free model with a small CLIP."""
    cfg = small("training_free/names.py", folder)
    cfg.model.neck.text.templates = SENTENCE
    cfg.dump(folder / "free.py")
    return folder / "free.py"


def trained(folder: Path, name: str) -> tuple[Path, Path]:
    """The config of an OTSeg with a small CLIP, and a checkpoint that says what it learned."""
    cfg = small(f"otseg/{name}.py", folder)
    cfg.model.neck.text.templates = SENTENCE
    cfg.model.split = dict(classes="cocostuff", unseen=["dog", "cat", "wall-brick"])
    cfg.dump(folder / f"{name}.py")
    torch.manual_seed(0)
    model: Any = MODELS.build(resolve(Config.fromfile(folder / f"{name}.py")).model)
    split = model.neck.text.split
    names = split.classes if "supervised" in name else split.seen_names
    content = dict(state_dict=model.state_dict(), meta=dict(trained_classes=sorted(names)))
    torch.save(content, folder / f"{name}.pth")
    return folder / f"{name}.py", folder / f"{name}.pth"


def table(run: Path) -> dict[str, Any]:
    return json.loads((run / "benchmark" / "table.json").read_text())


def figures(run: Path) -> dict[str, dict[str, float]]:
    """The metrics by data set: what does not depend on the machine."""
    measured = table(run)["measured"]
    return {
        name: {key: row[key] for key in ("classes", "images", "pAcc", "mAcc", "mIoU")}
        for name, row in measured.items()
    }


def test_a_model_without_training_beside_what_papers_report(here: Path) -> None:
    run_tool("benchmark", free(here), "--work-dir", here / "run", "--images", 1)
    found = table(here / "run")
    assert set(found["measured"]) == {"voc20", "voc20b", "voc21", "ade20k_150"}
    assert "data/cityscapes" in found["not_here"]["cityscapes"]
    row = found["measured"]["ade20k_150"]
    assert (row["classes"], row["images"]) == (150, 2) and row["images_per_second"] > 0
    assert "mIoU_S" not in row and "mIoU_U" not in row  # nothing was trained
    run_tool("test", here / "free.py", "--data", "ade20k_150", "--work-dir", here / "test")
    assert last_metrics(here / "test")["mIoU"] == row["mIoU"]

    folder = here / "run" / "benchmark"
    with (folder / "table.csv").open(encoding="utf-8") as file:
        rows = {line["data set"]: line for line in csv.DictReader(file)}
    assert len(rows) == len(data_configs())
    assert rows["ADE20K-150"]["mIoU"] == str(row["mIoU"])
    assert rows["ADE20K-150"]["NACLIP"] == "19.1"
    assert rows["Cityscapes"]["images"] == "not here"
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert text.splitlines()[1].startswith("|---|---|") and "| ADE20K-150 | 2 |" in text
    assert "arXiv 2404.08181" in text
    assert (folder / "voc21.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["cocostuff_512", "cocostuff_512_supervised"])
def test_classes_are_seen_if_the_checkpoint_says_so(name: str, here: Path) -> None:
    options = ("--work-dir", here / "run", "--only", "voc20", "ade20k_150", "--images", 0)
    run_tool("benchmark", *trained(here, name), *options)
    voc, ade = (table(here / "run")["measured"][each] for each in ("voc20", "ade20k_150"))
    assert 0 <= ade["mIoU_S"] <= 100 and "mIoU_U" in ade  # COCO-Stuff lacks some of its classes
    supervised = "supervised" in name
    cfg = Config(dict(model=dict(split=dict(classes="voc"))))
    known = {*ClassSplit.build("cocostuff").classes} - ({"dog", "cat"} if not supervised else set())
    seen = benchmark.set_unseen(cfg, known)
    unseen = set(cfg.model.split["unseen"])
    assert ("dog" in unseen) == ("cat" in unseen) == (not supervised)
    assert seen == 20 - len(unseen) and "bus" not in unseen
    assert "mIoU_S" in voc


def test_results_of_another_checkpoint_are_measured_anew(here: Path) -> None:
    config, checkpoint = trained(here, "cocostuff_512")
    arguments = (config, checkpoint, "--work-dir", here / "run", "--only", "voc20", "--images", 0)
    result = here / "run/benchmark/voc20.json"
    run_tool("benchmark", *arguments)
    first = result.stat().st_mtime_ns
    run_tool("benchmark", *arguments)
    assert result.stat().st_mtime_ns == first
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["neck.descriptor.linear.weight"].mul_(-1)
    torch.save(content, checkpoint)
    run_tool("benchmark", *arguments)
    assert result.stat().st_mtime_ns > first


def test_none_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match="data/VOCdevkit"):
        run_tool("benchmark", free(tmp_path), "--work-dir", tmp_path / "run")


@pytest.mark.slow
def test_two_processes_give_the_table_of_one(here: Path) -> None:
    arguments = (*trained(here, "cocostuff_512"), "--images", 1)
    run_tool("benchmark", *arguments, "--work-dir", here / "one")
    run_processes(2, "benchmark", *arguments, "--work-dir", here / "two")
    assert figures(here / "one") == figures(here / "two")
    assert (here / "two/benchmark/voc20.png").is_file()
