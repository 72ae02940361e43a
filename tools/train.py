"""Train a model from a config, with mmengine's Runner."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also where nothing is installed

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from mmseg_otseg.engine.cli import config_parser, latest_checkpoint, load_config
from mmseg_otseg.engine.distributed import process_group


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from CHECKPOINT, or from the latest one of the work folder if none is given",
    )
    parser.add_argument("--amp", action="store_true", help="train with automatic mixed precision")
    return parser.parse_args()


def set_resume(cfg: Config, resume: str) -> None:
    """Continue from ``resume``, or from the latest checkpoint if it is 'auto'."""
    checkpoint = latest_checkpoint(cfg.work_dir) if resume == "auto" else resume
    if checkpoint is None:
        print_log(f"{cfg.work_dir} holds no checkpoint yet: training starts from the beginning")
        return
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"The checkpoint to resume from, {checkpoint}, does not exist.")
    cfg.resume = True
    cfg.load_from = checkpoint


def set_amp(cfg: Config) -> None:
    """Turn an ``OptimWrapper`` into an ``AmpOptimWrapper``."""
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        raise ValueError(f"--amp works with optim_wrapper.type='OptimWrapper', not with '{kind}'.")
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    if args.resume is not None:
        set_resume(cfg, args.resume)
    if args.amp:
        set_amp(cfg)
    with process_group(cfg):
        runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
        runner.train()


if __name__ == "__main__":
    main()
