"""Train a model from a config with mmengine's Runner."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .config import build_runner, fetch_weights, load_config
from .options import add_launcher, config_parser

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    add_launcher(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from CHECKPOINT, or by default from the latest one in the work folder",
    )
    parser.add_argument("--amp", action="store_true", help="train with automatic mixed precision")
    return parser.parse_args()


def set_resume(cfg: Config, resume: str) -> None:
    """Continue from the checkpoint ``resume``; 'auto' means the latest in the work folder."""
    from mmengine.logging import print_log

    from mmseg_otseg.engine.run_folder import latest_checkpoint

    checkpoint = latest_checkpoint(cfg.work_dir) if resume == "auto" else resume
    if checkpoint is None:
        print_log(f"{cfg.work_dir} holds no checkpoint yet: training starts from the beginning")
        return
    cfg.resume = True
    cfg.load_from = checkpoint


def set_amp(cfg: Config) -> None:
    """Turn an ``OptimWrapper`` into an ``AmpOptimWrapper``, or on a CPU into ours for it."""
    from mmengine.device import get_device

    from mmseg_otseg.errors import UserError

    options = cfg.optim_wrapper
    kind = options.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        raise UserError(f"--amp works with optim_wrapper.type='OptimWrapper', not with '{kind}'.")
    if get_device() != "cpu":
        options.type = "AmpOptimWrapper"
        options.setdefault("loss_scale", "dynamic")
        return
    if options.pop("dtype", "bfloat16") != "bfloat16" or (
        cfg.model.get("clip", {}).get("precision") == "fp16"
    ):
        raise UserError(
            "--amp with float16 needs a GPU, but torch finds none: on a CPU use bfloat16 "
            "(optim_wrapper.dtype, model.clip.precision=bf16)"
        )
    options.pop("loss_scale", None)
    options.type = "CPUAmpOptimWrapper"


def main() -> None:
    args = parse_args()
    cfg = load_config(args, "train", "val")
    if args.resume is not None:
        set_resume(cfg, args.resume)
    if args.amp:
        set_amp(cfg)
    if args.check_only:
        fetch_weights(cfg)
        return
    from mmseg_otseg.engine import process_group

    with process_group(cfg):
        build_runner(cfg).train()
