"""The tutorial of configs/own_data runs as it stands, and its settings reach everything."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from PIL import Image

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.folder_data import change_labels, write_folders
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import run_tool
from tests.helpers.small_configs import small

README = (ROOT / "configs" / "own_data" / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\n(.+?)\n```$", README, re.MULTILINE)
(STREETS,) = re.findall(r"^```python\n(.+?)^```$", README, re.MULTILINE | re.DOTALL)
NAMES = re.findall(r'"([a-z ]+)"', STREETS.split("classes=")[1].split("unseen=")[0])
UNSEEN = ("tree", "fence", "bicyclist")
SETTINGS = dict(re.findall(r"^\| `(\w+)` \|.*\| `--cfg-options (.+)` \|$", README, re.MULTILINE))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The reader's folder: data, the project's configs made small, and the file to write."""
    folder = tmp_path_factory.mktemp("reader")
    write_folders(folder / "data" / "own", classes=NAMES)
    write_folders(folder / "data" / "other", classes=NAMES)
    (folder / "data" / "other" / "classes.txt").write_text("\n".join(["air", *NAMES[1:]]) + "\n")
    from_one = write_folders(folder / "data" / "from_one", classes=NAMES)
    change_labels(from_one, lambda label: label + 1)  # 255 becomes 0, the background
    for path in write_folders(folder / "data" / "towns", classes=NAMES).glob("*/*/*"):
        (path.parent / "town").mkdir(exist_ok=True)
        path.rename(path.parent / "town" / path.name)
    (folder / "configs" / "own_data").mkdir(parents=True)
    for path in (ROOT / "configs" / "own_data").glob("*.py"):
        cfg = small(f"own_data/{path.name}", folder)
        cfg.pop("work_dir")
        cfg.dump(folder / "configs" / "own_data" / path.name)
    (folder / "configs" / "own_data" / "streets.py").write_text(STREETS)
    for name, base in (("zegot", "zegot_512"), ("trial", "otseg_512_trial")):
        text = STREETS.replace("./otseg_512.py", f"./{base}.py", 1)
        (folder / "configs" / "own_data" / f"streets_{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        yield folder


def run(command: str) -> None:
    """Run a command of the tutorial in this process, with what a shell puts into it."""
    command = re.sub(r"\$\(cat (\S+)\)", lambda found: Path(found[1]).read_text().strip(), command)
    python, tool, *words = shlex.split(command)
    assert python == "python" and (ROOT / tool).is_file()
    run_tool(tool.removeprefix("tools/").removesuffix(".py"), *words)


def test_the_tutorial(workspace: Path, capfd: pytest.CaptureFixture) -> None:
    check, train, calibrate, test, segment = COMMANDS
    assert set(SETTINGS) <= set(SETTING_LINES) and len(NAMES) == 11
    run(check)
    text = capfd.readouterr().out
    assert "training makes sense" in text and all(name in text for name in NAMES)
    assert cv2.imread("work_dirs/streets/data_check.png") is not None

    run(train)
    text = "".join(capfd.readouterr())
    assert "mIoU(U)" in text
    last = Path("work_dirs/streets/last_checkpoint").read_text().strip()

    run(calibrate)
    assert f"stored in {last}" in capfd.readouterr().out
    stored = read_checkpoint(last)["state_dict"]["decode_head.calibrated_seen_bias.ensemble"].item()

    run(test)
    assert f" {stored:g}, calibrated" in "".join(capfd.readouterr())

    run(segment)
    for image in Path("data/own/images/val").iterdir():
        mask = np.asarray(Image.open(f"work_dirs/streets/photographs/pred/{image.stem}.png"))
        assert mask.shape == (48, 64) and mask.max() < 6
    assert len(list(Path("work_dirs/streets/photographs/vis").iterdir())) == 2


# The README's settings, each with another value than that of streets.py, in a derived file. The
# data of some values differ, so that a step which does not get the setting fails.
SETTING_LINES = {
    "data_root": 'data_root = "data/other"',
    "classes": 'model = dict(split=dict(classes="data/other/classes.txt"))',
    "unseen": 'model = dict(split=dict(unseen=["car", 0]))',
    "background": 'data_root = "data/from_one"\nbackground = 0',
    "sub-folders": 'data_root = "data/towns"',
    "a root of its own": (
        'data_root = "data/other"\n'
        'train_dataloader = dict(dataset=dict(dataset=dict(data_root="data/own")))'
    ),
    "together": (
        'data_root = "data/from_one"\nbackground = 0\n'
        'model = dict(split=dict(classes="data/other/classes.txt", unseen=["car"]))'
    ),
}
QUICK = [("streets_trial", "background"), ("streets_zegot", "together")]


@pytest.mark.parametrize(
    ("base", "setting"),
    [
        pytest.param(base, setting, marks=() if (base, setting) in QUICK else pytest.mark.slow)
        for base in ("streets", "streets_zegot", "streets_trial")
        for setting in SETTING_LINES
    ],
)
def test_a_setting_from_check_to_segment(
    workspace: Path, capfd: pytest.CaptureFixture, base: str, setting: str
) -> None:
    """Each documented setting, alone and together, passes every step and reaches it."""
    work = Path("work_dirs", f"{base}_{setting}".replace(" ", "_"))
    file = Path("configs/own_data", f"{work.name}.py")
    file.write_text(f'_base_ = "./{base}.py"\n{SETTING_LINES[setting]}\n')
    options = ("--work-dir", work)
    run_tool("analysis/check_data", file, *options)
    printed = "".join(capfd.readouterr())
    assert "training makes sense" in printed
    run_tool("train", file, *options)
    last = (work / "last_checkpoint").read_text().strip()
    run_tool("analysis/calibrate_seen_bias", file, last, *options, "--write")
    capfd.readouterr()
    run_tool("test", file, last, *options)
    printed += "".join(capfd.readouterr())
    images = "data/own/images/val"
    names = ["--classes", "sky, road"]
    run_tool("segment", images, "--model", file, "--weights", last, *names, "--out", work / "out")
    assert len(list((work / "out" / "pred").iterdir())) == 2
    first = "air" if "classes" in SETTING_LINES[setting] else "sky"
    unseen: tuple[str, ...] = UNSEEN
    if "unseen" in SETTING_LINES[setting]:
        unseen = ("car",) if setting == "together" else ("car", first)
    for name in (first, *NAMES[1:]):  # in the tables of check_data and of test
        mark = "U" if name in unseen else "S"
        assert re.findall(rf"\| +{name} +\| +([SU]) ", printed) == [mark, mark]


def test_only_seen_classes_are_labeled(workspace: Path) -> None:
    """Validation measures the seen classes, and the best checkpoint is theirs."""
    names = [name for name in NAMES if name not in UNSEEN]
    write_folders(workspace / "data" / "seen", classes=names)
    text = STREETS.replace("otseg_512.py", "otseg_512_seen_labels.py")
    start, end = text.index("classes=["), text.index("unseen=")
    listed = f"classes={[*names, *UNSEEN]!r},\n        "
    file = Path("configs/own_data/seen.py")
    file.write_text(text[:start] + listed + text[end:])
    options = ["--cfg-options", "data_root=data/seen"]
    run_tool("train", file, "--work-dir", "work_dirs/seen", *options)
    assert list(Path("work_dirs/seen").glob("best_mIoU_S*.pth"))


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_curves_of_other_loggers(kind: str) -> None:
    cfg = Config.fromfile(ROOT / "configs" / "_base_" / f"runtime_{kind}.py")
    backends = [backend.type for backend in cfg.visualizer.vis_backends]
    assert kind in backends[1].lower() and VISBACKENDS.get(backends[1]) is not None
