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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import load_config
from .options import add_cfg_options, new_parser

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor, nn

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


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Number of parameters, and of those that train."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def count_multiply_adds(model: Any, image: Tensor) -> dict[str, dict[str, int]]:
    """Both counts of one forward pass, by part.

    Args:
        model: A segmentor with the parts :data:`PARTS`.
        image: Images, shape (B, 3, h, w).

    Returns:
        ``complete`` and ``modules``, multiply-adds of each part.
    """
    import torch
    from torch import nn
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    complete, modules = {}, dict.fromkeys(PARTS, 0)
    meta = [dict(ori_shape=image.shape[2:], img_shape=image.shape[2:])] * len(image)
    steps = {
        "backbone": model.backbone,
        "neck": model.neck,
        "decode_head": lambda inputs: model.decode_head.predict(inputs, meta, model.test_cfg),
    }
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one kernel in which nothing can be counted
    values: Any = image
    try:
        for part, step in steps.items():

            def count(module: nn.Module, _: Any, output: Tensor, part: str = part) -> None:
                weight: Any = module.weight
                modules[part] += output.numel() * math.prod(weight.shape[1:])

            hooks = [
                module.register_forward_hook(count)
                for module in getattr(model, part).modules()
                if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d))
            ]
            counter = FlopCounterMode(display=False)
            with torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):
                values = step(values)
            complete[part] = counter.get_total_flops() // 2
            for hook in hooks:
                hook.remove()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return {"complete": complete, "modules": modules}


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

    init_default_scope("mmseg")
    model = MODELS.build(ConfigDict(without_weights(cfg.model.to_dict()))).eval()
    size = (shape[0], shape[-1])
    image = torch.zeros(1, 3, *size)
    with torch.no_grad():
        model.encode_decode(image, [dict(ori_shape=size, img_shape=size)])  # encodes the text
    counts = count_multiply_adds(model, image)
    table = {
        part: {
            **count_parameters(getattr(model, part)),
            **{name: values[part] for name, values in counts.items()},
        }
        for part in PARTS
    }
    total = {
        **count_parameters(model),
        **{name: sum(values.values()) for name, values in counts.items()},
    }
    return {"shape": size, **table, "total": total}


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
