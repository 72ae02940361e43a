"""What the command-line tools share: their options and how these change a config."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import find_latest_checkpoint


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that mmseg's own tools have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="folder of logs, metrics and checkpoints")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help='settings that override the config, e.g. train_cfg.max_iters=100 key="[a,b]"',
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started this process, if it is one of several",
    )
    # Launchers older than torchrun pass the number of the process instead of setting LOCAL_RANK.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and apply the options of :func:`config_parser`.

    The work folder is the option's, else the config's, else ``work_dirs/<name of the config>``.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None or cfg.get("work_dir") is None:
        cfg.work_dir = args.work_dir or str(Path("work_dirs") / Path(args.config).stem)
    return cfg


def latest_checkpoint(work_dir: str) -> str | None:
    """The newest checkpoint of a run, also when its folder was moved; None if it wrote none yet.

    Raises:
        FileNotFoundError: The folder names a checkpoint that is not there.
    """
    named = find_latest_checkpoint(work_dir)
    if named is None:
        return None
    for file in (Path(named), Path(work_dir) / Path(named).name):
        if file.is_file():
            return str(file)
    raise FileNotFoundError(
        f"{Path(work_dir) / 'last_checkpoint'} names '{named}', which is not there. Give the "
        "checkpoint to resume from with --resume PATH, or remove that file to start anew."
    )
