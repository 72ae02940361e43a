"""The tutorial of configs/own_data runs as it stands, and its settings reach everything."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.runner import Runner
from mmseg.registry import MODELS
from mmseg_otseg_cli.options import config_parser

from mmseg_otseg.engine import ZeroShotRunner, read_checkpoint
from tests.helpers.folder_data import write_folders
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
    (folder / "data" / "own" / "classes.txt").write_text("\n".join(NAMES) + "\n")
    (folder / "configs" / "own_data").mkdir(parents=True)
    for path in (ROOT / "configs" / "own_data").glob("*.py"):
        cfg = small(f"own_data/{path.name}", folder)
        cfg.pop("work_dir")
        cfg.dump(folder / "configs" / "own_data" / path.name)
    (folder / "configs" / "own_data" / "streets.py").write_text(STREETS)
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
        mask = cv2.imread(f"work_dirs/streets/photographs/pred/{image.stem}.png", -1)
        assert mask.shape == (48, 64) and mask.max() < 6
    assert len(list(Path("work_dirs/streets/photographs/vis").iterdir())) == 2


def runner_of(file: str, *options: str) -> Runner:
    """A run with everything built, of a config file with options of the command line."""
    args = config_parser("").parse_args([file, *options])
    cfg = Config.fromfile(file)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.work_dir, cfg.experiment_name = "work_dirs/built", f"built {hash((file, options))}"
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.train_loop, runner.val_loop, runner.test_loop  # noqa: B018  builds the data
    return runner


def reaches_everything(runner: Runner, **expected: Any) -> None:
    """Model, head and all data mean the same."""
    splits = [runner.model.neck.text.split]
    loops = (runner.train_loop, runner.val_loop, runner.test_loop)
    datasets = [loop.dataloader.dataset for loop in loops]
    for split in [*splits, *(dataset.split for dataset in datasets)]:
        assert list(split.classes) == expected.get("classes", NAMES)
        assert split.unseen_names == expected.get("unseen", UNSEEN)
    assert runner.model.decode_head.num_classes == len(expected.get("classes", NAMES))
    for dataset in datasets:
        (leaf,) = dataset.leaves
        assert Path(leaf.data_root) == Path(expected.get("data_root", "data/own"))
        assert leaf.background == expected.get("background")
    for loop in loops[1:]:
        metric = loop.evaluator.metrics[0]
        assert list(metric.dataset_meta["unseen"]) == list(splits[0].unseen)


CHANGED = dict(
    data_root=("data/other", dict(data_root="data/other")),
    classes=(["air"], dict(classes=["air", *NAMES[1:]])),
    unseen=("[car]", dict(unseen=("car",))),
    background=("0", dict(background=0)),
)


@pytest.mark.parametrize("setting", list(CHANGED))
@pytest.mark.parametrize("model", ["otseg", "zegot"])
def test_a_setting_on_the_command_line(workspace: Path, setting: str, model: str) -> None:
    """The README's option with another value reaches the model, the data and the metric."""
    if not (workspace / "data" / "other").exists():
        write_folders(workspace / "data" / "other", classes=NAMES)
        names = "\n".join(["air", *NAMES[1:]])
        (workspace / "data" / "other" / "classes.txt").write_text(names)
    file = "configs/own_data/streets.py"
    if model == "zegot":
        file = "configs/own_data/streets_zegot.py"
        Path(file).write_text(STREETS.replace("./otseg_512.py", "./zegot_512.py", 1))
    option = SETTINGS[setting]
    key, value = option.split("=", 1)
    other = "data/other/classes.txt" if setting == "classes" else CHANGED[setting][0]
    reaches_everything(
        runner_of(file, "--cfg-options", f"{key}={value.strip(chr(34))}"), **given(setting)
    )
    reaches_everything(runner_of(file, "--cfg-options", f"{key}={other}"), **CHANGED[setting][1])


def given(setting: str) -> dict[str, Any]:
    """What the README's own value means."""
    return dict(background=0) if setting == "background" else {}


@pytest.mark.parametrize("setting", list(CHANGED))
def test_a_setting_in_a_derived_file(workspace: Path, setting: str) -> None:
    lines = dict(
        data_root='data_root = "data/other"',
        classes='model = dict(split=dict(classes="data/other/classes.txt"))',
        unseen='model = dict(split=dict(unseen=["car"]))',
        background="background = 0",
    )
    write = workspace / "data" / "other"
    if not write.exists():
        write_folders(write, classes=NAMES)
        (write / "classes.txt").write_text("\n".join(["air", *NAMES[1:]]))
    file = Path(f"configs/own_data/derived_{setting}.py")
    file.write_text(f'_base_ = "./streets.py"\n{lines[setting]}\n')
    reaches_everything(runner_of(str(file)), **CHANGED[setting][1])


@pytest.mark.parametrize("line", ['unseen = ["car"]', 'classes = ["car"]'])
def test_a_setting_without_effect(workspace: Path, line: str) -> None:
    file = Path("configs/own_data/idle.py")
    file.write_text(f'_base_ = "./streets.py"\n{line}\n')
    with pytest.raises(ValueError, match=r"model=dict\(split="):
        run_tool("train", file, "--work-dir", "work_dirs/idle")


def test_the_trial_needs_no_network(workspace: Path) -> None:
    file = Path("configs/own_data/trial.py")
    file.write_text(STREETS.replace("otseg_512.py", "otseg_512_trial.py"))
    shutil.copy(ROOT / "configs" / "own_data" / "otseg_512_trial.py", file.parent)
    cfg = Config.fromfile(file)
    assert cfg.model.clip.pretrained is None and cfg.train_cfg.max_iters == 60
    MODELS.build(cfg.model)


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


def logging_to(what: str, folder: Path) -> Config:
    """The config with the one line replaced that the README names."""
    text = (ROOT / "configs" / "own_data" / "otseg_512.py").read_text(encoding="utf-8")
    line = '"../_base_/default_runtime.py"'
    assert line in text and line in README and f'"../_base_/runtime_{what}.py"' in README
    text = text.replace(line, f'"../_base_/runtime_{what}.py"')
    file = folder / f"{what}.py"
    file.write_text(text.replace("../_base_", str(ROOT / "configs" / "_base_")))
    return small(Config.fromfile(file), folder)


def test_curves_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_folders(tmp_path / "data" / "own")
    cfg = logging_to("tensorboard", tmp_path)
    cfg.default_hooks.logger.interval = 1
    cfg.visualizer.name = cfg.experiment_name = "tensorboard"
    ZeroShotRunner.from_cfg(cfg).train()
    (events,) = (tmp_path / "work").glob("*/vis_data/events*")
    curves = EventAccumulator(str(events))
    curves.Reload()
    assert {"loss", "seen_pixels", "hIoU", "mIoU_U"} <= set(curves.Tags()["scalars"])


def test_curves_in_weights_and_biases(tmp_path: Path) -> None:
    """The package is not among the test requirements: that mmengine finds the backend is all."""
    backends = logging_to("wandb", tmp_path).visualizer.vis_backends
    assert [backend.type for backend in backends] == ["LocalVisBackend", "WandbVisBackend"]
    assert VISBACKENDS.get("WandbVisBackend") is not None


@pytest.mark.slow
def test_weights_and_biases_takes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is installed; offline, so that nothing leaves the machine."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    write_folders(tmp_path / "data" / "own")
    cfg = logging_to("wandb", tmp_path)
    cfg.default_hooks.logger.interval = 1
    cfg.visualizer.name = cfg.experiment_name = "wandb"
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.train()
    runner.visualizer.close()
    (log,) = tmp_path.glob("**/offline-run-*/run-*.wandb")
    written = log.read_bytes()
    assert b"hIoU" in written and b"seen_pixels" in written


def test_the_readme_is_complete() -> None:
    assert len(COMMANDS) == 5 and set(SETTINGS) == set(CHANGED) and len(NAMES) == 11
    assert not re.search(r"[A-Z]+_OUTPUT", README)
    assert np.isin(UNSEEN, NAMES).all()
