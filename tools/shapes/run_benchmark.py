#!/usr/bin/env python
"""Train and test the rows of the shapes benchmark over seeds, and write their table.

Finished runs are kept: repeating a command that was killed gives the same table as an uninterrupted
one. The seen-class bias is chosen on val; the table reports test.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

from mmseg_otseg_cli import run
from mmseg_otseg_cli.calibrate_seen_bias import METRICS
from mmseg_otseg_cli.errors import CommandError
from mmseg_otseg_cli.options import add_cfg_options, new_parser

SHAPES = Path(__file__).resolve().parents[2] / "configs" / "shapes"
#: Rows of the table by config in ``configs/shapes``.
ROWS = {
    "training_free": "training-free CLIP map",
    "naclip": "training-free, NACLIP's attention",
    "sclip": "training-free, SCLIP's attention",
    "zegclip": "ZegCLIP",
    "softmax": "OTSeg, softmax for Sinkhorn",
    "mps_only": "MPS map only",
    "otseg": "OTSeg",
    "otseg_plus": "OTSeg+",
    "zegot": "ZegOT",
    "supervised": "OTSeg, masks of all classes",
    "one_prompt": "OTSeg, one prompt",
    "no_visual_prompts": "OTSeg, no visual prompts",
    "checkpoint/otseg_plus": "OTSeg+, trained longer",
}
#: Weights that a row is tested with if they are not its own; None where nothing is trained.
WEIGHTS = {
    "training_free": None,
    "naclip": None,
    "sclip": None,
    "otseg_plus": "otseg",
    "checkpoint/otseg_plus": "checkpoint/otseg_plus.safetensors",
}
COLUMNS = {**METRICS, "seen_bias": "bias"}


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--bias", type=float, help="seen-class bias. Default: chosen on val")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/shapes_benchmark"))
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at the same time, each on one thread. Default: 1"
    )
    add_cfg_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds


import torch
from mmengine.config import Config
from mmseg_otseg_cli.benchmark import digest, markdown_table

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.engine.run_folder import latest_checkpoint
from mmseg_otseg.evaluation import best_bias, sweep_seen_bias
from mmseg_otseg.files import write_atomically


def prepare(name: str, seed: int, args: argparse.Namespace, *folder: str) -> Config:
    """The config of a row for one seed, which writes to its folder.

    Raises:
        CommandError: If a run of another config, or with other weights of CLIP, is there.
    """
    cfg = Config.fromfile(SHAPES / f"{name}.py")
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.randomness = dict(seed=seed)
    cfg.visualizer.pop("name")  # mmengine keeps one visualizer per name
    work_dir = args.work_dir.joinpath(name, f"seed_{seed}", *folder)
    settings, key = work_dir / "settings", digest(cfg, cfg.model.clip.get("pretrained"))
    if settings.is_file() and settings.read_text() != key:
        raise CommandError(
            f"{work_dir} holds a run of other settings (config, seed or CLIP weights), perhaps "
            "of another version. Remove that folder, or choose another --work-dir."
        )
    work_dir.mkdir(parents=True, exist_ok=True)
    settings.write_text(key)
    cfg.work_dir, cfg.experiment_name = str(work_dir), "_".join([name, str(seed), *folder])
    return cfg


def train(name: str, seed: int, args: argparse.Namespace) -> Path:
    """Train a row for one seed, or go on where that was interrupted.

    Returns:
        The last checkpoint.
    """
    cfg = prepare(name, seed, args)
    last = Path(cfg.work_dir, f"iter_{cfg.train_cfg.max_iters}.pth")
    found = latest_checkpoint(cfg.work_dir)
    if found != str(last):
        cfg.load_from, cfg.resume = found, found is not None
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # nothing is chosen meanwhile
        ZeroShotRunner.from_cfg(cfg).train()
    return last


def evaluate(
    name: str, seed: int, checkpoint: Path | None, args: argparse.Namespace
) -> dict[str, float]:
    """Choose the bias on val and measure on test; what was measured before is read.

    Returns:
        The bias and the metrics, in percent.
    """
    cfg = prepare(name, seed, args, "evaluation")
    bias = args.bias
    file = Path(cfg.work_dir, f"bias_{'chosen' if bias is None else bias}.json")
    if file.is_file():
        return json.loads(file.read_text())
    if bias is None:
        bias = best_bias(sweep_seen_bias(cfg, checkpoint))["seen_bias"]
    cfg.experiment_name += "_test"
    (result,) = sweep_seen_bias(cfg, checkpoint, [bias], "test")
    with write_atomically(file) as part:
        part.write_text(json.dumps(result))
    return result


def run_rows(
    weights: str | None, seed: int, names: Sequence[str], args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """What :func:`evaluate` returns for each of the rows that share some weights."""
    torch.set_num_threads(1)  # so that it repeats
    checkpoint = None
    if weights is not None:
        shipped = weights.endswith(".safetensors")
        checkpoint = SHAPES / weights if shipped else train(weights, seed, args)
    return {name: evaluate(name, seed, checkpoint, args) for name in names}


def as_table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Mean and standard deviation of each row over its runs, in Markdown."""
    rows = []
    for name, runs in results.items():
        cells = [ROWS[name]]
        for metric in COLUMNS:
            values, digits = [run[metric] for run in runs], 3 if metric == "seen_bias" else 1
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.{digits}f}{spread}")
        rows.append(cells)
    table = markdown_table(["method", *COLUMNS.values()], rows)
    return f"{table}\n\nPercent on test; mean ± standard deviation over the seeds of training.\n"


def main() -> None:
    args = parse_args()
    tasks: dict[tuple[str | None, int], list[str]] = {}
    for seed, name in product(args.seeds, args.rows):
        weights = WEIGHTS.get(name, name)
        trained = weights is not None and weights in ROWS
        if trained or seed == args.seeds[0]:  # the others do not depend on the seed
            tasks.setdefault((weights, seed), []).append(name)
    calls = [(weights, seed, names, args) for (weights, seed), names in tasks.items()]
    if args.jobs > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(args.jobs, mp_context=spawn) as pool:
            done = list(pool.map(run_rows, *zip(*calls)))
    else:
        done = [run_rows(*call) for call in calls]
    table = as_table({name: [run[name] for run in done if name in run] for name in args.rows})
    file = args.work_dir / "table.md"
    file.write_text(table)
    print(f"\n{table}\nwritten to {file}")


if __name__ == "__main__":
    run(main)
