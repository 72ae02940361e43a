"""Every line of the README, run from the README's own text on small data with a small CLIP."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.request import urlopen

import cv2
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS
from mmseg_otseg_tools import cli

from mmseg_otseg.demo.samples import shipped_model
from mmseg_otseg.export.folder import MIN_TORCH
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models import supported_models
from mmseg_otseg.structures import ClassSplit
from tests.helpers.paths import ROOT
from tests.helpers.readme import README, blocks, prose, rows, spans
from tests.helpers.reference import Reference
from tests.helpers.run_tools import run_processes, run_tool
from tests.helpers.serving import served
from tests.helpers.small_configs import CLIP, small, write_data
from tests.helpers.tiny_clip import tiny_clip

WISHES = rows("| one wish | one line |")
FOLDERS = rows("| folder | what is in it |")
VOC = "configs/otseg/voc_512.py"
MMSEG = Path(mmseg.__file__).parent / ".mim" / "configs"
COMMANDS = [(block.section, line) for block in blocks("bash") for line in block.commands]
SETUP_SCRIPTS = ("tools/demo.sh", "tools/run_tests.sh", "tools/quickstart.sh")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder of the README's reader: data, and the configs under their names."""
    folder = tmp_path_factory.mktemp("workspace")
    write_data(folder)
    label = folder / "data/VOCdevkit/VOC2012/SegmentationClass/train0.png"
    values = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(label), np.where(values == 255, 255, values % 15 + 1).astype(np.uint8))
    (folder / "photos").mkdir()
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(folder / "data/VOCdevkit/VOC2012/JPEGImages/val0.jpg", folder / "photos" / name)
    text = np.random.default_rng(0).normal(size=(20, 6, CLIP["model"]["embed_dim"]))
    text /= np.linalg.norm(text, axis=-1, keepdims=True)
    np.save(folder / "text.npy", text.astype(np.float32))
    named = set(re.findall(r"configs/\w+/\w+\.py", README))
    for name in sorted(named | {"configs/otseg/cocostuff_512.py"}):
        cfg = small(name.removeprefix("configs/"), folder)
        cfg.pop("work_dir")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(folder / name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def checkpoint(workspace: Path) -> Path:
    """What the README's first training command writes, here in two iterations."""
    _, line = next(pair for pair in COMMANDS if "dist_train.sh" in pair[1])
    script, config, _, *options = shlex.split(line)
    assert (ROOT / script).is_file() and not options
    run_processes(2, "train", config)
    return next(workspace.glob("work_dirs/**/iter_2.pth"))


def run(command: str, checkpoint: Path | str = "") -> None:
    """Run one of the README's commands for a tool, in this process."""
    words = [str(checkpoint) if word == "CHECKPOINT" else word for word in shlex.split(command)]
    words = [word.replace("=CHECKPOINT", f"={checkpoint}") for word in words]
    if words[0] == "python":
        words = words[1:]
    assert (ROOT / words[0]).is_file(), command
    name = words[0].removeprefix("tools/").removesuffix(".py")
    run_tool(name, *words[1:])


def test_training_and_testing(workspace: Path, checkpoint: Path) -> None:
    """Test on several processes, resume, test with overlays and augmentation."""
    commands = [line for section, line in COMMANDS if section == "Training and testing"]
    assert len(commands) == 4
    script, config, best, _ = shlex.split(commands[1])
    best = re.sub(r"iter_\d+", "iter_2", best)
    assert (ROOT / script).is_file() and Path(best).is_file(), list(workspace.glob("work_dirs/**"))
    run_processes(2, "test", config, best)
    resume = commands[2]
    run(resume + " --cfg-options train_cfg.max_iters=3")
    assert (checkpoint.parent / "iter_3.pth").is_file()
    run(commands[3], checkpoint)
    overlays = [file for file in Path().glob("**/drawn/**/*") if file.is_file()]
    assert len(overlays) == 2 and all(cv2.imread(str(file)) is not None for file in overlays)


def derived(line: str, tmp_path: Path) -> Path:
    """A config file that adds a line of the README to the VOC config."""
    file = tmp_path / "derived.py"
    file.write_text(f'_base_ = "{Path(VOC).absolute()}"\n{line}\n')
    return file


def leaves(settings: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif key != "_delete_":
            yield f"{prefix}{key}", value


def lookup(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def train_briefly(config: str | Path, folder: Path, *options: str) -> Config:
    """Train two iterations, and return the config that the run wrote."""
    options = ("train_cfg.max_iters=2", *options)
    run_tool("train", config, "--work-dir", folder, "--cfg-options", *options)
    assert (folder / "iter_2.pth").is_file()
    return Config.fromfile(folder / Path(config).name)


RUNNABLE = re.compile(r"--cfg-options|configs/\S+\.py|tools/|export |\w+ = |[a-z_]+(\.\w+)+=")
ONE_LINES = [
    (wish, [span for span in spans(cell) if RUNNABLE.match(span)]) for wish, cell in WISHES
]


def test_every_wish_has_a_line() -> None:
    assert len(ONE_LINES) >= 15
    for (wish, lines), (_, cell) in zip(ONE_LINES, WISHES):
        assert lines or re.fullmatch(r"\[.+\]\(.+\)", cell), wish  # a line, or a page


@pytest.mark.parametrize(("wish", "lines"), ONE_LINES, ids=[wish for wish, _ in ONE_LINES])
def test_one_wish(
    wish: str, lines: list[str], workspace: Path, checkpoint: Path, tmp_path: Path
) -> None:
    if any(line.startswith("tools/") for line in lines):
        return run_commands(lines, checkpoint, tmp_path)
    for number, line in enumerate(lines):
        folder = tmp_path / str(number)
        if line.startswith("export "):
            name, value = line.removeprefix("export ").split("=")
            with patch.dict(os.environ, {name: value}):
                assert value in str(Config.fromfile(ROOT / VOC))
            continue
        if line.startswith("configs/"):
            file, *options = shlex.split(line.replace("CHECKPOINT", str(checkpoint)))
            train_briefly(file, folder, *options[1:])
            continue
        if re.match(r"\w+ = ", line):
            config = derived(line, tmp_path)
            wanted = dict(leaves(ast_value(line)))
            model = wanted.get("model.clip.model")
            if model is not None:  # one of full size: see that it exists
                assert model in supported_models()
                assert Config.fromfile(config).model.clip.model == model
                continue
            cfg = train_briefly(config, folder)
        else:
            options = shlex.split(line.removeprefix("--cfg-options "))
            wanted = cli.config_parser("").parse_args(["c", "--cfg-options", *options])
            wanted = wanted.cfg_options
            cfg = train_briefly(VOC, folder, *options)
        for key, value in wanted.items():
            assert lookup(cfg, key) == value, key


def ast_value(line: str) -> dict[str, Any]:
    """The settings of a line ``name = dict(...)``."""
    names: dict[str, Any] = {}
    exec(compile(ast.parse(line), "README.md", "exec"), {}, names)
    return names


def run_commands(lines: list[str], checkpoint: Path, tmp_path: Path) -> None:
    """Run the commands of a row; what they need besides is made here."""
    first = next(line for line in lines if line.startswith("tools/"))
    if "cross_dataset" in first:
        trained = tmp_path / "trained"
        run_tool("train", "configs/otseg/cocostuff_512.py", "--work-dir", trained)
        return run(first, trained / "iter_2.pth")
    if "SRC DST" not in first:
        own = shutil.copy(checkpoint, tmp_path)  # a tool may write into it
        for line in lines:
            run(f"{line.replace('CONFIG', VOC)} --work-dir {tmp_path}", own)
        return
    reference = Reference("a")
    source, converted = tmp_path / "authors.pth", tmp_path / "converted.pth"
    torch.save({"state_dict": reference.group("state/"), "meta": {}}, source)
    cfg = Config.fromfile(VOC)
    cfg.model.clip = ConfigDict(reference.clip())
    cfg.model.backbone.visual_prompts.num_tokens = reference.config("visual_prompt_tokens")
    cfg.dump(tmp_path / "voc.py")
    for line in lines:
        line = line.replace("SRC", str(source)).replace("DST", str(converted))
        run(line.replace(VOC, str(tmp_path / "voc.py")))


def test_any_class_names(workspace: Path, checkpoint: Path) -> None:
    for _, command in [pair for pair in COMMANDS if pair[0] == "Any class names"]:
        run(command, checkpoint)
        assert len(list(Path("out/pred").iterdir())) == 2
        shutil.rmtree("out")
    names: dict[str, Any] = {}
    for block in blocks("python", "Any class names"):
        exec(block.text.replace("CHECKPOINT", str(checkpoint)), names)
    assert [mask.shape for mask in names["masks"]] == [(64, 80)] * 2
    assert len(list(Path("out/pred").iterdir())) == len(list(Path("out/vis").iterdir())) == 2


def test_export(
    workspace: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export a model, run it by the next command, and what the text says of its files."""
    pytest.importorskip("onnxscript")
    lines = [line for section, line in COMMANDS if section == "Export"]
    if tuple(map(int, torch.__version__.split(".")[:2])) < MIN_TORCH:
        with pytest.raises(ImportError, match="torch"):
            run(lines[1], checkpoint)
        return
    run(lines[1], checkpoint)
    python, option, module, *arguments = shlex.split(lines[2])
    assert (python, option) == ("python", "-m")
    importlib.import_module(f"{module}.__main__").main(arguments)
    assert len(list(Path("out/pred").iterdir())) == 2
    shutil.rmtree("out")
    section = README[README.index("### Export") : README.index("### In a config you already")]
    for file in re.findall(r"`(\w+\.(?:onnx|json|npz))`", section):
        assert (Path("exported") / file).is_file(), file


@pytest.mark.slow
def test_page(workspace: Path, checkpoint: Path) -> None:
    """The page for a model of one's own answers a browser; the other has its model at hand."""
    pytest.importorskip("gradio")
    _, shipped, own = (line for section, line in COMMANDS if section == "A page and a notebook")
    python, tool, *arguments = shlex.split(own)
    assert (python, tool) == ("python", "tools/web_demo.py") and shipped == f"{python} {tool}"
    arguments = [word.replace("CHECKPOINT", str(checkpoint)) for word in arguments]
    with served(arguments, workspace) as url, urlopen(url) as answer:
        assert answer.status == 200
    assert all(file.is_file() for file in shipped_model())


def existing_config(number: int, stock: Path, file: Path, classes: list[str]) -> Path:
    """The first ``number`` blocks of "In a config you already have", added to a stock config."""
    text = "\n".join(
        block.text for block in blocks("python", "In a config you already have")[:number]
    )
    clip = f"dict(model={tiny_clip(patch_size=64)})"
    text = re.sub(r"(?m)^clip = dict\(.*\)$", f"clip = {clip}", text)
    assert clip in text and "[...]" in text
    file.write_text(f'_base_ = "{stock}"\n{text.replace("[...]", str(classes))}')
    return file


SMALL_RUN = [
    "train_cfg.max_iters=1",
    "train_cfg.val_interval=1",
    "default_hooks.checkpoint.interval=1",
    "train_dataloader.batch_size=2",
    *(f"{part}_dataloader.num_workers=0" for part in ("train", "val")),
    *(f"{part}_dataloader.persistent_workers=False" for part in ("train", "val")),
]
SMALL_TEST = ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
needs_stock = pytest.mark.skipif(not MMSEG.is_dir(), reason="mmsegmentation without its configs")


@needs_stock
@pytest.mark.parametrize("number", [1, 2])
def test_in_a_config_you_already_have(number: int, workspace: Path, tmp_path: Path) -> None:
    """Trained by mmseg's own tools, tested, and segmented with."""
    stock = MMSEG / "fcn" / "fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"
    classes = list(mmseg.datasets.PascalVOCDataset.METAINFO["classes"])
    config = existing_config(number, stock, tmp_path / "existing.py", classes)
    if number == 2:
        tool = [str(MMSEG.parent / "tools" / "train.py"), str(config)]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, *tool, "--work-dir", str(tmp_path), "--cfg-options", *SMALL_RUN],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    else:
        run_tool("train", config, "--work-dir", tmp_path, "--cfg-options", *SMALL_RUN)
    trained = tmp_path / "iter_1.pth"
    run_tool("test", config, trained, "--work-dir", tmp_path / "test", "--cfg-options", *SMALL_TEST)
    masks = OTSegInferencer(str(config), str(trained))("photos", classes=["cat", "sofa"])
    assert len(masks["predictions"]) == 2


@needs_stock
@pytest.mark.parametrize(
    "stock",
    [
        "pspnet/pspnet_r50-d8_4xb4-20k_voc12aug-512x512.py",
        "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
        "vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py",
        "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py",
    ],
)
def test_in_configs_of_other_models(stock: str, tmp_path: Path) -> None:
    classes = ["sofa", "train", *(f"class {index}" for index in range(19))]
    config = existing_config(2, MMSEG / stock, tmp_path / "c.py", classes)
    if "neck" in Config.fromfile(MMSEG / stock, import_custom_modules=False).model:
        assert "`_delete_=True` there too" in README
        config.write_text(config.read_text().replace("neck=dict(", "neck=dict(_delete_=True, "))
    cfg = Config.fromfile(config)
    assert (
        cfg.train_dataloader.dataset.type == cfg.test_dataloader.dataset.type == "ZeroShotDataset"
    )
    model = MODELS.build(cfg.model)
    assert type(model.backbone).__name__ == "CLIPBackbone" and not model.with_auxiliary_head


INSTALLS = [
    words
    for line in [line for _, line in COMMANDS if line.startswith("pip ")]
    + [part for span in spans(prose()) if span.startswith("pip ") for part in span.split(" && ")]
    if (words := shlex.split(line))
]


@pytest.mark.parametrize("words", INSTALLS, ids=" ".join)
def test_pip_takes_the_install_lines(words: list[str]) -> None:
    """Without a network and without changing anything: pip reads and prepares what is asked for."""
    pytest.importorskip("setuptools")
    offline = ["--dry-run", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", *words, *offline]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stdout + done.stderr


def test_every_command_is_known() -> None:
    """A command that no test here runs would be noticed."""
    run_here = {"Training and testing", "Any class names", "Export", "A page and a notebook"}
    for section, line in COMMANDS:
        script = next((part for part in line.split() if part.startswith("tools/")), None)
        known = section in run_here or line.startswith("pip ") or script in SETUP_SCRIPTS
        assert known, f"{section}: {line}"
    for language in {block.language for block in blocks()} - {"bash", "python", "mermaid"}:
        pytest.fail(f"no test runs blocks of {language}")
    for block in blocks("python"):
        assert block.section in ("Any class names", "In a config you already have")


@pytest.mark.parametrize("script", SETUP_SCRIPTS)
def test_scripts_that_set_up_are_whole(script: str) -> None:
    assert f"bash {script}" in README
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["tools/quickstart.sh", "tools/demo.sh"])
def test_scripts_that_set_up_run(script: str) -> None:
    subprocess.run(["bash", str(ROOT / script)], check=True)


def test_tools_named_in_the_text_take_their_options(workspace: Path) -> None:
    """``python tools/...`` in the text, and every option named there."""
    for span in spans(prose()):
        if span.startswith("python tools/analysis/get_flops.py"):
            run(span + " --shape 64")
        elif span.startswith("python tools/"):
            assert (ROOT / span.split()[1]).is_file(), span
    files = [*(ROOT / "tools").rglob("*.py"), *(ROOT / "tools").glob("*.sh")]
    sources = "\n".join(file.read_text() for file in files)
    text = README.replace("--no-deps", "")  # pip's
    for option in sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))):
        assert re.search(rf'"{option}"|  {option} ', sources), option


def test_links_and_paths_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for span in spans(prose()):
        if re.fullmatch(r"(configs|tools|tests|mmseg_otseg)(/[\w.]+)+", span):
            assert (ROOT / span).exists(), span
    assert (ROOT / "LICENSE").is_file()


@pytest.mark.parametrize(("folders", "content"), FOLDERS)
def test_folders_hold_what_the_table_says(folders: str, content: str) -> None:
    paths = [ROOT / name for name in spans(folders)]
    paths = [path if path.is_dir() else paths[0].parent / path.name for path in paths]
    assert all(path.is_dir() for path in paths), folders
    source = "\n".join(file.read_text() for path in paths for file in path.rglob("*.py"))
    for name in spans(content):
        assert re.search(rf"\b{name}\b", source) or any((path / name).is_dir() for path in paths)


def test_names_in_the_text_exist() -> None:
    """Identifiers, settings and splits that the text names, in the package or in mmseg."""
    files = [
        file for part in ("mmseg_otseg", "configs", "tools") for file in (ROOT / part).rglob("*")
    ]
    source = "\n".join(file.read_text() for file in files if file.suffix in (".py", ".sh"))
    for span in spans(prose()):
        if re.fullmatch(r"mmseg_otseg(\.\w+)+(\(\))?", span):
            module, _, name = span.removesuffix("()").rpartition(".")
            assert hasattr(importlib.import_module(module), name), span
        elif word := re.fullmatch(r"([A-Za-z_]\w+)(\(.*\)|=\w+)?", span):
            known = re.search(rf"\b{word[1]}", source)
            assert known or word[1] in ("LICENSE",), span
    named = re.search(r"class splits of the papers have names: (.+?)\n\n", README, re.DOTALL)
    for split in spans(named[1]):
        assert ClassSplit.build(split).classes
    unseen = re.search(r"`voc` \(unseen:\s+(.+?)\)", README, re.DOTALL)
    assert tuple(unseen[1].split(", ")) == ClassSplit.build("voc").unseen_names
