#!/usr/bin/env python
"""Train the OTSeg+ that comes with the project, and write its weights as one small file.

The seen-class bias is chosen on val and stored with the weights; CLIP, which lies beside them, is
left out. The same seed gives the same file on one machine, also after an interruption.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the imports from `tools`
from mmseg_otseg_cli import run
from mmseg_otseg_cli.options import add_cfg_options, new_parser

CHECKPOINT = "checkpoint/otseg_plus"


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/shapes_checkpoint"))
    add_cfg_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds

import torch
from safetensors.torch import save_file

from mmseg_otseg.engine import read_checkpoint
from mmseg_otseg.evaluation import best_bias, sweep_seen_bias
from mmseg_otseg.models.decode_heads import state_key
from tools.shapes.run_benchmark import load, train


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)  # so that it repeats
    checkpoint = train(CHECKPOINT, args.seed, args.work_dir, args.cfg_options)
    cfg = load(CHECKPOINT, args.seed, args.cfg_options)
    cfg.work_dir = str(args.work_dir / "evaluation")
    cfg.experiment_name = "checkpoint_val"
    chosen = best_bias(sweep_seen_bias(cfg, checkpoint, subset="val"))

    state = read_checkpoint(checkpoint, "cpu")["state_dict"]
    key = state_key(cfg.model.decode_head.predict_from)
    state[f"decode_head.{key}"] = torch.tensor(chosen["seen_bias"], dtype=torch.float64)
    out = args.work_dir / "otseg_plus.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, out)
    out.chmod(0o644)
    content = out.read_bytes()
    print(json.dumps({"val": chosen}, indent=2))
    print(f"wrote {out}, {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    run(main)
