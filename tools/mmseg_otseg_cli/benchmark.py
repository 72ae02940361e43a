"""Test a model on every open-vocabulary data set that is here, beside what papers report.

The data sets are those of ``configs/open_vocabulary``. The result of each is written once it is
complete, and an interrupted benchmark goes on after it. In several processes:
``tools/dist.sh benchmark.py PROCESSES CONFIG CHECKPOINT``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import configs_folder, fetch_weights, load_config
from .errors import CommandError
from .open_vocabulary import config_on_data, data_configs, read_data_config
from .options import add_launcher, config_parser
from .test import build_tester

if TYPE_CHECKING:
    from mmengine.config import Config

#: Settings that say where and how a test runs, not what it measures.
NOT_MEASURED = ("work_dir", "launcher", "model_wrapper_cfg", "load_from")
#: What is measured, and its column.
MEASURES = {
    "mIoU": "mIoU",
    "mIoU_S": "seen",
    "mIoU_U": "unseen",
    "images_per_second": "images/s",
    "peak_gib": "peak GiB",
}
DASH = "\N{EN DASH}"
DPI = 110
Row = dict[str, Any]


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    add_launcher(parser)
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="checkpoint file or URL; not needed if the config's model has nothing to train",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="data sets. Default: all")
    parser.add_argument(
        "--images", type=int, default=4, help="images on the sheet of each data set. Default: 4"
    )
    return parser.parse_args()


def find_data(cfg: Config, names: Sequence[str] | None) -> tuple[dict[str, Config], dict[str, str]]:
    """The data sets of these names, by default all, and whether they are here.

    Returns:
        The configs that test the model on each, and what is missing of those that are not here.

    Raises:
        CommandError: If none of them is here.
    """
    from mmseg_otseg.datasets.data_folders import check_data_folders
    from mmseg_otseg.engine import resolve

    tests, lacking = {}, {}
    for given in names or data_configs():
        name = Path(given).stem
        tests[name] = config_on_data(cfg, read_data_config(given))
        try:
            check_data_folders(resolve(tests[name]).test_dataloader.dataset)
        except FileNotFoundError as error:
            lacking[name] = f"{error} To prepare it, {tests[name].prepare}."
    if tests.keys() == lacking.keys():
        listed = "\n".join(f"- {name}: {text}" for name, text in lacking.items())
        raise CommandError(f"none of the data sets is here:\n{listed}")
    return tests, lacking


def set_unseen(cfg: Config, trained: Collection[str]) -> int:
    """Call the classes unseen that a checkpoint was not trained on with labels.

    Nothing is subtracted from seen classes on these data sets, so only the metrics change. A split
    of unseen classes alone cannot be; it stays as it is.

    Returns:
        The number of classes that are seen.
    """
    from mmseg_otseg.structures import ClassSplit

    split, known = ClassSplit.build(cfg.model.split), set(map(_plain, trained))
    named = zip(split.classes, split.names)
    unseen = [first for first, names in named if known.isdisjoint(map(_plain, names))]
    if len(unseen) < split.num_classes:
        cfg.model.split = dict(split.as_config(), unseen=unseen)
    return split.num_classes - len(unseen)


def _plain(name: str) -> str:
    return name.casefold().replace("-", " ")


def digest(cfg: Config, *files: str | None) -> str:
    """A digest of what a test measures: its settings, and the files of weights."""
    settings = {key: value for key, value in cfg.to_dict().items() if key not in NOT_MEASURED}
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for file in files:
        found.update(str(file).encode())
        if file and Path(file).is_file():
            found.update(Path(file).read_bytes())
    return found.hexdigest()


def measure(cfg: Config, seen: int | None, sheet: Path, images: int) -> Row:
    """Test on one data set, and draw some of its images into a sheet.

    Args:
        cfg: Config of the test.
        seen: Number of classes that were trained; None if that is not known.
        sheet: File to draw into.
        images: How many images to draw.

    Returns:
        The metrics in percent; the numbers of ``classes`` and ``images``; ``images_per_second``;
        and ``peak_gib``, a GPU's memory at its peak, None without one.
    """
    import torch
    from mmengine.dist import all_reduce, is_main_process

    runner, gpu = build_tester(cfg), torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    metrics = runner.test()
    memory = torch.tensor(torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0)
    all_reduce(memory, "max")
    seconds, _ = runner.message_hub.get_scalar("test/time").data
    dataset: Any = runner.test_dataloader.dataset
    if not seen:
        of_all = metrics.pop("mIoU_S")
        metrics |= {} if seen is None else {"mIoU_U": of_all}
    if images and is_main_process():
        _draw(runner, sheet, images)
    return dict(
        classes=len(dataset.metainfo["classes"]),
        images=len(dataset),
        images_per_second=round(len(dataset) / float(seconds.sum()), 3),
        peak_gib=round(float(memory), 2) or None,
        **metrics,
    )


def _draw(runner: Any, file: Path, number: int) -> None:
    """Draw images, evenly spread over the test data, with their labels and predictions."""
    import numpy as np
    import torch

    from mmseg_otseg.engine.hooks.checks import segmentor
    from mmseg_otseg.imaging import palette_for, read_image
    from mmseg_otseg.inference import sheets

    loader, model, rows = runner.test_dataloader, segmentor(runner.model), []
    number, last = min(number, len(loader.dataset)), len(loader.dataset) - 1
    for index in np.linspace(0, last, number).astype(int).tolist():
        with torch.no_grad():
            (sample,) = model.test_step(loader.collate_fn([loader.dataset[index]]))
        label, found = (
            sample.get(key).data[0].cpu().numpy() for key in ("gt_sem_seg", "pred_sem_seg")
        )
        rows.append(sheets.Row(read_image(sample.img_path)[0], label, {"prediction": found}))
    meta = loader.dataset.metainfo
    names, unseen = meta["classes"], list(meta["unseen"])
    sheet = sheets.segmentation_sheet(rows, names, palette_for(names, meta), unseen)
    sheet.savefig(file, dpi=DPI)


def write_table(
    folder: Path,
    titles: Mapping[str, str],
    lacking: Mapping[str, str],
    results: Mapping[str, Row],
) -> str:
    """Write the table as Markdown, JSON and CSV, with what papers report.

    Args:
        folder: Where to.
        titles: Titles of the data sets by name; each is a row.
        lacking: What is not here of some of them.
        results: What was measured on the others.

    Returns:
        The table in Markdown.
    """
    import yaml

    source = configs_folder() / "open_vocabulary" / "reported.yaml"
    papers = yaml.safe_load(source.read_text(encoding="utf-8"))["Reported"]
    head = ["data set", "images", *MEASURES.values(), *(paper["Method"] for paper in papers)]
    rows = []
    for name, title in titles.items():
        row = results.get(name, {})
        cells = [row.get(key) for key in MEASURES]
        cells += [paper["mIoU"].get(name) for paper in papers]
        cells = [DASH if cell is None else cell for cell in cells]
        rows.append([title, row.get("images", "not here"), *cells])
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    lines += ["", "mIoU in percent, measured here. To the right of it, as reported:", ""]
    lines += [f"- {paper['Method']}, {paper['CLIP']}: {paper['Source']}" for paper in papers]
    if lacking:
        lines += ["", "Not here:", ""]
        lines += [f"- {titles[name]}: {text}" for name, text in lacking.items()]
    text = "\n".join(lines)
    whole = dict(measured=results, reported=papers, not_here=lacking)
    (folder / "table.md").write_text(text, encoding="utf-8")
    (folder / "table.json").write_text(json.dumps(whole, indent=2), encoding="utf-8")
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return text


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    tests, lacking = find_data(cfg, args.only)
    if args.check_only:
        fetch_weights(cfg)
        return
    from mmengine.dist import is_main_process
    from mmengine.runner import CheckpointLoader

    from mmseg_otseg.engine import process_group
    from mmseg_otseg.engine.hooks.checks import trained_classes
    from mmseg_otseg.files import write_atomically

    folder, trained = Path(cfg.work_dir) / "benchmark", None
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Row] = {}
    with process_group(cfg):
        if args.checkpoint is not None:
            loaded = CheckpointLoader.load_checkpoint(args.checkpoint, "cpu")
            trained = trained_classes(loaded.get("meta")) or None
        for name, test in tests.items():
            if name in lacking:
                continue
            test.model_wrapper_cfg = cfg.get("model_wrapper_cfg")
            test.work_dir, test.experiment_name = str(folder / name), f"benchmark {name}"
            test.visualizer.pop("name", None)  # mmengine keeps one visualizer per name
            seen = None if trained is None else set_unseen(test, trained)
            file = folder / f"{name}.json"
            key = digest(test, args.checkpoint, cfg.model.clip.get("pretrained"))
            row = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            if row.get("measured_with") != key:
                row = measure(test, seen, folder / f"{name}.png", args.images)
                row["measured_with"] = key
                if is_main_process():
                    with write_atomically(file) as part:
                        part.write_text(json.dumps(row, indent=2), encoding="utf-8")
            results[name] = row
        if is_main_process():
            titles = {name: test.title for name, test in tests.items()}
            print(write_table(folder, titles, lacking, results))
            print(f"written to {folder}")
