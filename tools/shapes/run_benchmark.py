"""Run the rows of the shapes benchmark over seeds and write their table.

Finished runs are kept: repeating a command that was killed gives the same table as an uninterrupted
one. Choices (the seen-class bias) are made on val; the table reports test, on which every trained
model is evaluated once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "configs" / "shapes"
sys.path.insert(0, str(ROOT))  # for the imports from `tools`
from mmseg_otseg_cli import run
from mmseg_otseg_cli.options import add_cfg_options, new_parser


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        title: Its name in the table.
        trained_by: The config whose training it shares; None if nothing is trained.
        weights: A file in ``configs/shapes`` that it is evaluated with, if nothing is trained.
    """

    title: str
    trained_by: str | None = None
    weights: str | None = None


ROWS = {  # by config in configs/shapes
    "training_free": Row("training-free CLIP map"),
    "naclip": Row("training-free, NACLIP's attention"),
    "sclip": Row("training-free, SCLIP's attention"),
    "zegclip": Row("ZegCLIP", "zegclip"),
    "softmax": Row("OTSeg, softmax for Sinkhorn", "softmax"),
    "mps_only": Row("MPS map only", "mps_only"),
    "otseg": Row("OTSeg", "otseg"),
    "otseg_plus": Row("OTSeg+", "otseg"),
    "zegot": Row("ZegOT", "zegot"),
    "supervised": Row("OTSeg, masks of all classes", "supervised"),
    "one_prompt": Row("OTSeg, one prompt", "one_prompt"),
    "no_visual_prompts": Row("OTSeg, no visual prompts", "no_visual_prompts"),
    "checkpoint/otseg_plus": Row(
        "OTSeg+, trained longer", weights="checkpoint/otseg_plus.safetensors"
    ),
}
PAPER_BIAS = 0.1
BIASES = {
    "none": "No seen-class bias",
    "paper": f"Seen-class bias {PAPER_BIAS:g}, as in the paper",
    "calibrated": "Seen-class bias chosen on val",
}
METRICS = {"mIoU_S": "mIoU(S)", "mIoU_U": "mIoU(U)", "hIoU": "hIoU"}


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument(
        "--iterations",
        nargs="+",
        type=int,
        metavar="N",
        help="lengths of training, for a learning curve. Default: the config's",
    )
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/shapes_benchmark"))
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at the same time, each on one thread. Default: 1"
    )
    parser.add_argument(
        "--show-bias",
        nargs="+",
        choices=BIASES,
        default=list(BIASES),
        help="for which biases the Markdown table is written; the JSON file has all",
    )
    add_cfg_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds


import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.engine.run_folder import latest_checkpoint
from mmseg_otseg.evaluation import best_bias, sweep_seen_bias

# Runs ---------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Show progress on the terminal, whatever stdout is redirected to."""
    print(text, file=sys.__stdout__, flush=True)


class ProgressHook(Hook):
    """Ten lines of progress per run."""

    def __init__(self, title: str) -> None:
        self.title = title

    def after_train_iter(self, runner: ZeroShotRunner, *args: Any, **kwargs: Any) -> None:
        done, total = runner.iter + 1, runner.max_iters
        if done % max(1, total // 10) == 0:
            loss = runner.message_hub.get_scalar("train/loss").mean(50)
            say(f"{self.title}: {done} of {total} iterations, loss {loss:.3f}")


def load(config: str, seed: int, options: dict[str, Any] | None) -> Config:
    """A config of the benchmark for one seed."""
    cfg = Config.fromfile(SHAPES / f"{config}.py")
    cfg.merge_from_dict(options or {})
    cfg.randomness = dict(seed=seed)
    cfg.visualizer.pop("name", None)  # mmengine keeps one visualizer per name
    cfg.default_hooks.pop("visualization", None)
    return cfg


def claim(folder: Path, cfg: Config) -> None:
    """Take a folder for a run of a config.

    Raises:
        ValueError: If a run of another config, or with other weights of CLIP, is there.
    """
    settings = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    weights = cfg.model.clip.get("pretrained")
    if weights and Path(weights).is_file():
        settings = settings.replace(weights, hashlib.sha256(Path(weights).read_bytes()).hexdigest())
    file = folder / "settings.json"
    if file.is_file() and file.read_text() != settings:
        raise ValueError(
            f"{folder} holds a run of other settings (config, seed or CLIP weights). Remove that "
            "folder, or choose another --work-dir."
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(settings)


def train(config: str, seed: int, work_dir: Path, options: dict[str, Any] | None) -> Path:
    """Train one config for one seed, or go on where that was interrupted.

    Returns:
        The last checkpoint.
    """
    cfg = load(config, seed, options)
    folder = work_dir / config / f"seed_{seed}"
    claim(folder, cfg)
    last = folder / f"iter_{cfg.train_cfg.max_iters}.pth"
    found = latest_checkpoint(str(folder))
    if found == str(last):
        return last
    cfg.work_dir, cfg.experiment_name = str(folder), f"{config}_{seed}"
    for name in ("cfg", "dataloader", "evaluator"):  # nothing is chosen during training
        cfg[f"val_{name}"] = cfg[f"test_{name}"] = None
    cfg.load_from, cfg.resume = found, found is not None
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.register_hook(ProgressHook(f"{ROWS[config].title}, seed {seed}"))
    runner.train()
    return last


def evaluate(
    name: str, seed: int, checkpoint: Path | None, work_dir: Path, options: dict[str, Any] | None
) -> dict[str, Any]:
    """Choose the bias on val and measure on test; what was measured before is read.

    Returns:
        ``seed``, ``seconds`` of training, the ``bias`` chosen, ``val`` at it, and ``test`` for each
        of :data:`BIASES`, in percent.
    """
    folder = work_dir / name / f"seed_{seed}" / "evaluation"
    file = folder / "result.json"
    cfg = load(name, seed, options)
    claim(folder, cfg)
    if file.is_file():
        return json.loads(file.read_text())
    cfg.work_dir, cfg.experiment_name = str(folder), f"{name}_{seed}_val"
    chosen = best_bias(sweep_seen_bias(cfg, checkpoint, subset="val"))
    biases = {"none": 0.0, "paper": PAPER_BIAS, "calibrated": chosen["seen_bias"]}
    cfg.experiment_name = f"{name}_{seed}_test"
    table = sweep_seen_bias(cfg, checkpoint, list(biases.values()), subset="test")
    by_bias = {line["seen_bias"]: line for line in table}
    result = {
        "seed": seed,
        "seconds": training_seconds(checkpoint) if ROWS[name].trained_by and checkpoint else 0.0,
        "bias": chosen["seen_bias"],
        "val": chosen,
        "test": {name: by_bias[bias] for name, bias in biases.items()},
    }
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2))
    part.replace(file)
    return result


def training_seconds(checkpoint: Path) -> float:
    """Seconds that all iterations took, from their logged means; those before a kill count too."""
    means: dict[int, float] = {}
    for file in sorted(checkpoint.parent.glob("*/vis_data/scalars.json")):
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        means.update((entry["step"], entry["time"]) for entry in entries if "loss" in entry)
    steps = sorted(means)
    return sum(means[step] * (step - before) for before, step in zip([0, *steps], steps))


def run_task(
    trained_by: str | None,
    names: Sequence[str],
    seed: int,
    iterations: int | None,
    work_dir: Path,
    options: dict[str, Any] | None,
) -> dict[str, dict[str, Any]]:
    """Train once and evaluate the rows that share the weights; one thread, so that it repeats.

    Returns:
        What :func:`evaluate` returns, by row; with ``iterations``, by ``ROW@ITERATIONS``.
    """
    torch.set_num_threads(1)
    if iterations is not None:
        length = {"train_cfg.max_iters": iterations, "train_cfg.val_interval": iterations}
        options, work_dir = {**(options or {}), **length}, work_dir / f"{iterations}_iterations"
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / "console.log").open("a") as log, contextlib.redirect_stdout(log):
        trained = train(trained_by, seed, work_dir, options) if trained_by else None
        results = {}
        for name in names:
            weights = ROWS[name].weights
            checkpoint = trained if weights is None else SHAPES / weights
            key = name if iterations is None else f"{name}@{iterations}"
            results[key] = evaluate(name, seed, checkpoint, work_dir, options)
            scores = results[key]["test"]["calibrated"]
            say(f"{title(key)}, seed {seed}: hIoU {scores['hIoU']:.2f} on test")
    return results


# The table ----------------------------------------------------------------------------------------


def title(key: str) -> str:
    """Name in the table of a ``ROW`` or ``ROW@ITERATIONS``."""
    name, _, iterations = key.partition("@")
    return ROWS[name].title + (f", {iterations} iterations" if iterations else "")


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean and spread (standard deviation, None for one run) of every row over its seeds."""

    def over(values: list[float]) -> dict[str, float | None]:
        spread = statistics.stdev(values) if len(values) > 1 else None
        return {"mean": statistics.fmean(values), "spread": spread}

    table = {}
    for key, runs in results.items():
        row: dict[str, Any] = {"title": title(key), "seeds": [run["seed"] for run in runs]}
        row["bias"] = over([run["bias"] for run in runs])
        row["seconds"] = over([run["seconds"] for run in runs])
        for bias in BIASES:
            tests = [run["test"][bias] for run in runs]
            row[bias] = {metric: over([test[metric] for test in tests]) for metric in METRICS}
        table[key] = row
    return table


def as_markdown(table: dict[str, Any], biases: Sequence[str]) -> str:
    """The summary as one Markdown table for each of some :data:`BIASES`.

    The last column compares mIoU(U) with that of the same model trained with all masks, if there
    is such a row; no bias is needed there, as it has no unseen class to favor.
    """

    def cell(value: dict[str, float | None], digits: int = 1) -> str:
        spread = "" if value["spread"] is None else f" ± {value['spread']:.{digits}f}"
        return f"{value['mean']:.{digits}f}{spread}"

    most = table["supervised"]["none"]["mIoU_U"]["mean"] if "supervised" in table else 0
    lines = []
    for bias in biases:
        head = ["method", *METRICS.values(), "bias", "training (s)"]
        head += ["of supervised"] if most else []
        lines += [f"{BIASES[bias]}:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for row in table.values():
            cells = [row["title"], *(cell(row[bias][metric]) for metric in METRICS)]
            cells.append(cell(row["bias"], 3) if bias == "calibrated" else "")
            cells.append(f"{row['seconds']['mean']:.0f}" if row["seconds"]["mean"] else "none")
            cells += [f"{row[bias]['mIoU_U']['mean'] / most:.0%}"] if most else []
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    seeds = max(len(row["seeds"]) for row in table.values())
    lines.append(f"Percent on test; mean ± standard deviation over {seeds} seed(s) of training.")
    return "\n".join(lines) + "\n"


def main() -> None:
    args = parse_args()
    tasks: dict[tuple[int, str | None, int | None], list[str]] = {}
    for name in args.rows:
        # What is not trained depends neither on the seed nor on the iterations.
        trained_by = ROWS[name].trained_by
        for seed in args.seeds if trained_by else args.seeds[:1]:
            for iterations in (args.iterations or [None]) if trained_by else [None]:
                tasks.setdefault((seed, trained_by, iterations), []).append(name)
    say(f"{len(tasks)} runs; their logs are below {args.work_dir}")
    calls = [
        (trained_by, names, seed, iterations, args.work_dir, args.cfg_options)
        for (seed, trained_by, iterations), names in sorted(
            tasks.items(), key=lambda task: task[0][0]
        )
    ]
    if args.jobs > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(args.jobs, mp_context=spawn) as pool:
            done = list(pool.map(run_task, *zip(*calls)))
    else:
        done = [run_task(*call) for call in calls]
    results: dict[str, list[dict[str, Any]]] = {}
    for name in args.rows:
        for found in done:
            for key in (key for key in found if key.partition("@")[0] == name):
                results.setdefault(key, []).append(found[key])
    table = summary(results)
    text = as_markdown(table, args.show_bias)
    (args.work_dir / "table.json").write_text(
        json.dumps({"table": table, "runs": results}, indent=2)
    )
    (args.work_dir / "table.md").write_text(text)
    say(f"\n{text}\nwritten to {args.work_dir / 'table.md'} and {args.work_dir / 'table.json'}")


if __name__ == "__main__":
    run(main)
