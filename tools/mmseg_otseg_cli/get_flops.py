"""Count parameters and multiply-adds of a model, part by part.

Two counts of one image through the model in testing, in multiply-adds ("FLOPs" in the papers):

- complete: every matrix product and convolution, those inside attention and of Sinkhorn too;
- modules: what counters see that hook Linear and Conv modules and nothing else. They miss the
  whole of ``nn.MultiheadAttention``, projections and products. OTSeg's 61.9 GFLOPs is such a count.

CLIP has random weights here, so nothing is downloaded. Text is encoded before the count begins, as
once per vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import load_config
from .options import add_cfg_options, new_parser

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor

PARTS = ("backbone", "neck", "decode_head")


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("config", help="config file, or the name of an installed config")
    parser.add_argument(
        "--shape",
        type=int,
        nargs="+",
        default=[512, 512],
        metavar="PIXELS",
        help="height and width of the image, or its side (default: 512 512)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to FILE")
    add_cfg_options(parser)
    args = parser.parse_args()
    if len(args.shape) > 2 or min(args.shape) < 1:
        parser.error("--shape takes one or two sizes in pixels, each at least 1")
    return args


def without_weights(config: Any) -> Any:
    """A model config in which every ``clip`` keeps its model and loses its weights."""
    if isinstance(config, dict):
        config = {key: without_weights(value) for key, value in config.items()}
        if isinstance(config.get("clip"), dict):
            config["clip"].pop("pretrained", None)
    elif isinstance(config, (list, tuple)):
        config = type(config)(without_weights(value) for value in config)
    return config


def measure(cfg: Config, shape: list[int]) -> dict[str, Any]:
    """Counts of the model of a config.

    Args:
        cfg: A config with ``model``.
        shape: Height and width in pixels, or the side of a square.

    Returns:
        For each of :data:`PARTS` and ``total``: ``parameters``, ``trainable``, ``complete`` and
        ``modules``; and the ``shape`` as (height, width).
    """
    import torch
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    init_default_scope("mmseg")
    model = MODELS.build(ConfigDict(without_weights(cfg.model.to_dict()))).eval()
    size = (shape[0], shape[-1])
    inputs = torch.zeros(1, 3, *size), [dict(ori_shape=size, img_shape=size)]
    modules: Counter[str] = Counter()

    def count(name: str, module: Any, _: Any, output: Tensor) -> None:
        modules[name] += output.numel() * math.prod(module.weight.shape[1:])

    torch.backends.mha.set_fastpath_enabled(False)  # one kernel in which nothing can be counted
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.encode_decode(*inputs)  # encodes the text
        for name, module in model.named_modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)):
                module.register_forward_hook(partial(count, name.split(".")[0]))
        with counter:
            model.encode_decode(*inputs)
    counts = {name: sum(found.values()) // 2 for name, found in counter.get_flop_counts().items()}
    complete = {part: counts.get(type(getattr(model, part)).__name__, 0) for part in PARTS}
    # The head's method for testing is no forward pass: what is left is the head's.
    complete["decode_head"] = counts["Global"] - complete["backbone"] - complete["neck"]

    def row(part: torch.nn.Module, name: str) -> dict[str, int]:
        return {
            "parameters": sum(p.numel() for p in part.parameters()),
            "trainable": sum(p.numel() for p in part.parameters() if p.requires_grad),
            "complete": complete.get(name, counts["Global"]),
            "modules": modules[name] if name in PARTS else modules.total(),
        }

    table = {part: row(getattr(model, part), part) for part in PARTS}
    return {"shape": size, **table, "total": row(model, "total")}


def main() -> None:
    args = parse_args()
    result = measure(load_config(args), args.shape)
    from prettytable import PrettyTable

    table = PrettyTable(["", "parameters", "trainable", "G (complete)", "G (modules)"], align="r")
    table.align[""] = "l"
    for name in (*PARTS, "total"):
        row = result[name]
        giga = (f"{row[key] / 1e9:.2f}" for key in ("complete", "modules"))
        table.add_row([name, f"{row['parameters']:,}", f"{row['trainable']:,}", *giga])
    print(table)
    height, width = result["shape"]
    print(f"G: 10^9 multiply-adds for one image of {height} x {width} pixels.")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
