"""Test a model on every open-vocabulary data set that is here, beside what papers report.

The data sets are those of ``configs/open_vocabulary``. The result of each is written once it is
complete, and an interrupted benchmark goes on after it. In several processes:
``tools/dist.sh benchmark.py PROCESSES CONFIG CHECKPOINT``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .benchmark_table import write_table
from .config import fetch_weights, load_config
from .errors import CommandError
from .open_vocabulary import data_configs, on_data, read_data
from .options import add_launcher, config_parser
from .test import build_tester

if TYPE_CHECKING:
    from mmengine.config import Config

#: Settings that say where and how a test runs, not what it measures.
NOT_MEASURED = ("work_dir", "launcher", "model_wrapper_cfg", "load_from")
DPI = 110
Row = dict[str, Any]


class DataSet(NamedTuple):
    """A data set to test on.

    Attributes:
        name: That of its config.
        title: What the table calls it.
        test: Config that tests the model on it.
        lacks: What is not here, and where it belongs; empty if all is here.
    """

    name: str
    title: str
    test: Config
    lacks: str


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


def find_data(cfg: Config, names: Sequence[str] | None) -> list[DataSet]:
    """The data sets of these names, by default all, and whether they are here.

    Raises:
        CommandError: If none of them is here.
    """
    from mmseg_otseg.datasets.data_folders import check_config
    from mmseg_otseg.engine import resolve

    found = []
    for name in names or data_configs():
        data = read_data(name)
        test, lacks = on_data(cfg, data), ""
        try:
            check_config(resolve(test).test_dataloader.dataset)
        except FileNotFoundError as error:
            lacks = f"{error} {data.prepare}"
        found.append(DataSet(Path(name).stem, data.title, test, lacks))
    if all(data.lacks for data in found):
        raise CommandError(f"none of the data sets is here. {found[0].lacks}")
    return found


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
            with open(file, "rb") as content:
                while part := content.read(2**24):
                    found.update(part)
    return found.hexdigest()


def known_result(file: Path, key: str) -> Row | None:
    """The result in a file; None if there is none, or it is of another config or checkpoint."""
    if not file.is_file():
        return None
    row = json.loads(file.read_text(encoding="utf-8"))
    same = row["measured_with"] == key
    print(
        f"{file}: measured before"
        if same
        else f"{file} is of another config or checkpoint and is measured anew"
    )
    return row if same else None


def measure(cfg: Config, seen: int | None, sheet: Path, images: int) -> Row:
    """Test on one data set, and draw some of its images into a sheet.

    Args:
        cfg: Config of the test.
        seen: Number of classes that were trained; None if that is not known.
        sheet: File to draw into.
        images: How many images to draw.

    Returns:
        The metrics in percent; the numbers of ``classes`` and ``images``; ``images_per_second``;
        and ``peak_gib``, the memory at its peak, None where it cannot be measured.
    """
    import torch
    from mmengine.dist import all_reduce, is_main_process

    runner = build_tester(cfg)
    _start_of_memory()
    metrics = runner.test()
    memory = torch.tensor(_peak_of_memory())
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


def _start_of_memory() -> None:
    """Begin to count the peak of memory: a GPU's, or on Linux this process's."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_of_memory() -> float:
    """The peak in GiB; 0 where it is not known."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**20
    return 0.0


def _draw(runner: Any, file: Path, number: int) -> None:
    """Draw images, evenly spread over the test data, with their labels and predictions."""
    import numpy as np
    import torch

    from mmseg_otseg.engine.hooks.checks import segmentor
    from mmseg_otseg.imaging import palette_for, read_image
    from mmseg_otseg.inference.sheets import Row, segmentation_sheet

    loader, model, rows = runner.test_dataloader, segmentor(runner.model), []
    number, last = min(number, len(loader.dataset)), len(loader.dataset) - 1
    for index in np.linspace(0, last, number).astype(int).tolist():
        with torch.no_grad():
            (sample,) = model.test_step(loader.collate_fn([loader.dataset[index]]))
        label, found = (
            sample.get(key).data[0].cpu().numpy() for key in ("gt_sem_seg", "pred_sem_seg")
        )
        rows.append(Row(read_image(sample.img_path)[0], label, {"prediction": found}))
    meta = loader.dataset.metainfo
    names, unseen = meta["classes"], list(meta["unseen"])
    segmentation_sheet(rows, names, palette_for(names, meta), unseen).savefig(file, dpi=DPI)


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    data = find_data(cfg, args.only)
    if args.check_only:
        fetch_weights(cfg)
        return
    from mmengine.dist import broadcast_object_list, is_main_process
    from mmengine.runner import CheckpointLoader

    from mmseg_otseg.engine import process_group
    from mmseg_otseg.engine.hooks.checks import trained_classes
    from mmseg_otseg.engine.run_folder import whole_file

    folder, trained = Path(cfg.work_dir) / "benchmark", None
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Row] = {}
    with process_group(cfg):
        if args.checkpoint is not None:
            loaded = CheckpointLoader.load_checkpoint(args.checkpoint, "cpu")
            trained = trained_classes(loaded.get("meta")) or None
        for name, _, test, lacks in data:
            if lacks:
                continue
            test.model_wrapper_cfg = cfg.get("model_wrapper_cfg")
            test.work_dir, test.experiment_name = str(folder / name), f"benchmark {name}"
            test.visualizer.pop("name", None)  # mmengine keeps one visualizer per name
            seen = None if trained is None else set_unseen(test, trained)
            file = folder / f"{name}.json"
            key = digest(test, args.checkpoint, cfg.model.clip.get("pretrained"))
            found = [known_result(file, key) if is_main_process() else None]
            broadcast_object_list(found)
            row = found[0]
            if row is None:
                row = measure(test, seen, folder / f"{name}.png", args.images)
                row["measured_with"] = key
                if is_main_process():
                    with whole_file(file) as part:
                        part.write_text(json.dumps(row, indent=2), encoding="utf-8")
            results[name] = row
        titles = {each.name: each.title for each in data}
        lacking = {each.name: each.lacks for each in data if each.lacks}
        if is_main_process():
            print(write_table(folder, titles, lacking, results))
            print(f"written to {folder}")
