"""Count parameters and multiply-adds of a model, part by part.

One image through the model in testing; multiply-adds ("FLOPs" in the papers) of every matrix
product and convolution, those inside attention and of Sinkhorn too. CLIP has random weights, so
nothing is downloaded. Text is encoded before the count begins, as once per vocabulary.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .config import load_config
from .options import add_cfg_options, new_parser

if TYPE_CHECKING:
    from mmengine.config import Config

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
    add_cfg_options(parser)
    args = parser.parse_args()
    if len(args.shape) > 2 or min(args.shape) < 1:
        parser.error("--shape takes one or two sizes in pixels, each at least 1")
    return args


def measure(cfg: Config, shape: list[int]) -> dict[str, dict[str, int]]:
    """Counts of the model of a config.

    Args:
        cfg: A config with ``model``.
        shape: Height and width in pixels, or the side of a square.

    Returns:
        For each of :data:`PARTS` and ``total``: ``parameters``, ``trainable`` and
        ``multiply_adds``.
    """
    import torch
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from mmseg_otseg.models.segmentors import change_clip_config

    init_default_scope("mmseg")
    change_clip_config(cfg.model, pretrained=None)
    model = MODELS.build(cfg.model).eval()
    size = (shape[0], shape[-1])
    inputs = torch.zeros(1, 3, *size), [dict(ori_shape=size, img_shape=size)]
    torch.backends.mha.set_fastpath_enabled(False)  # one kernel in which nothing can be counted
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.encode_decode(*inputs)  # encodes the text
        with FlopCounterMode(display=False) as counter:
            model.encode_decode(*inputs)
    found = {name: sum(each.values()) // 2 for name, each in counter.get_flop_counts().items()}
    counts = {part: found.get(type(getattr(model, part)).__name__, 0) for part in PARTS}
    # The head's method for testing is no forward pass: what is left is the head's.
    counts["decode_head"] = found["Global"] - counts["backbone"] - counts["neck"]
    counts["total"] = found["Global"]
    table = {}
    for name, number in counts.items():
        weights = list((model if name == "total" else getattr(model, name)).parameters())
        table[name] = {
            "parameters": sum(p.numel() for p in weights),
            "trainable": sum(p.numel() for p in weights if p.requires_grad),
            "multiply_adds": number,
        }
    return table


def main() -> None:
    args = parse_args()
    result = measure(load_config(args), args.shape)
    from prettytable import PrettyTable

    table = PrettyTable(["", "parameters", "trainable", "G"], align="r")
    table.align[""] = "l"
    for name, row in result.items():
        giga = f"{row['multiply_adds'] / 1e9:.2f}"
        table.add_row([name, f"{row['parameters']:,}", f"{row['trainable']:,}", giga])
    print(table)
    print(f"G: 10^9 multiply-adds for one image of {args.shape[0]} x {args.shape[-1]} pixels.")
