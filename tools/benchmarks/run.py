"""Measure the package against other ways to compute the same, and print the ratios.

Time is the median of several runs, both sides in turn in one process, which is new for every case:
memory that another case leaves behind in it would make large temporaries cheap. Peak memory is
measured in a new process for each side: on a CPU as resident memory above what it was before, on a
GPU as torch's allocator counts it. Weights are random; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the imports from `tools`
from mmseg_otseg_cli import run as run_tool
from mmseg_otseg_cli.options import new_parser


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="cases whose name has a WORD; a wrong one: a list"
    )
    parser.add_argument("--growth", action="store_true", help="growth curves instead of the table")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument(
        "--text-embeddings",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help=".npy files (K, N, D), for Sinkhorn at realistic costs",
    )
    parser.add_argument(
        "--exported",
        type=Path,
        metavar="FOLDER",
        help="an exported model too; written to FOLDER, in minutes, unless it is there",
    )
    parser.add_argument("--tiny", action="store_true", help="very small sizes, to try the tool")
    args = parser.parse_args(arguments)
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")
    if args.exported and args.device != "cpu":
        parser.error("--exported is measured on a CPU: leave --device out")
    return args


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds


import torch

import mmseg_otseg
from tools.benchmarks import cases
from tools.benchmarks.cases import Case
from tools.benchmarks.measure import median_times, peak_memory
from tools.benchmarks.models import (
    exported_case,
    inference_case,
    precision_inference_case,
    precision_step_case,
    zegot_case,
)

Row = dict[str, Any]


def all_cases(args: argparse.Namespace) -> dict[str, Callable[[], Case]]:
    """Name of every case, and what builds it."""
    device = args.device
    sizes = {"VOC": cases.VOC, "COCO-Stuff": cases.COCO_STUFF}
    if args.tiny:
        sizes = {name: each.tiny() for name, each in sizes.items()}
    found: dict[str, Callable[[], Case]] = {}

    def add_sinkhorn(name: str, cost: Callable[[], torch.Tensor], **options: Any) -> None:
        if importlib.util.find_spec("ot"):
            found[f"sinkhorn {name}"] = lambda: cases.sinkhorn_case(cost(), **options)

    for name, each in sizes.items():
        problems = each.classes * 4  # of four images
        for spread in (0.1, 0.5):
            cost = partial(cases.random_cost, problems, each, spread, device)
            add_sinkhorn(f"{name}, spread {spread}", cost)
        add_sinkhorn(f"{name}, 100 iterations", cost, tol=0.0)
    for file in args.text_embeddings:
        add_sinkhorn(f"text {file.stem}", partial(cases.text_cost, file, sizes["VOC"], device))
    for name, each in sizes.items():
        found[f"loss {name}"] = partial(cases.loss_case, each, device)
        found[f"head step {name}"] = partial(cases.head_case, each, device)
    found["ZegOT step VOC"] = partial(zegot_case, args.tiny, device)
    found["inference VOC"] = partial(inference_case, args.tiny, device)
    for kind in ("bf16",) if device == "cpu" else ("bf16", "fp16"):
        found[f"OTSeg step VOC, {kind}"] = partial(precision_step_case, args.tiny, device, kind)
        found[f"inference VOC, {kind}"] = partial(precision_inference_case, args.tiny, device, kind)
    if args.exported:
        found["inference exported, VOC"] = partial(exported_case, args.tiny, args.exported)
    if args.growth:
        found = growth_cases(args, sizes["VOC"])
    if args.only:
        words = [word.lower() for word in args.only]
        names = [name for name in found if any(word in name.lower() for word in words)]
        if not names:
            raise ValueError(f"--only: no case has a name like that. There are: {', '.join(found)}")
        found = {name: found[name] for name in names}
    return found


def growth_cases(args: argparse.Namespace, base: cases.Sizes) -> dict[str, Callable[[], Case]]:
    """One image, one size at a time: how cost grows with pixels, classes and prompts."""
    base, device = replace(base, batch=1), args.device
    found: dict[str, Callable[[], Case]] = {}
    for size in (base.size // 2, base.size, base.size * 2):
        each = replace(base, size=size, grid=size // 16)
        found[f"loss, {size} x {size} pixels"] = partial(cases.loss_case, each, device)
    for classes in (15, 60, 156, 300):
        each = replace(base, classes=classes)
        found[f"loss, {classes} classes"] = partial(cases.loss_case, each, device)
    for classes in (15, 60, 156):
        each = replace(base, classes=classes)
        found[f"head step, {classes} classes"] = partial(cases.head_case, each, device)
    for prompts in (1, 2, 4, 8, 16):
        each = replace(base, prompts=prompts)
        found[f"head step, {prompts} prompts"] = partial(cases.head_case, each, device)
    return found


def measure(name: str, args: argparse.Namespace) -> Row:
    """One row of the table."""
    row: Row = _in_new_process(times_of, name, args)
    if not args.no_memory:
        memory = {side: _in_new_process(memory_of, name, args, side) for side in ("ours", "other")}
        row["peak_mib"] = memory
        row["times_less_memory"] = memory["other"] / max(memory["ours"], 1.0)
    return row


def _in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    # The server has imported everything but computed nothing; its children start from there.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tools.benchmarks.run"])
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *arguments).result()


def times_of(name: str, args: argparse.Namespace) -> Row:
    """Differences and times of a case in this process: a row without memory."""
    torch.manual_seed(0)
    case = all_cases(args)[name]()
    row: Row = {"case": name, "against": case.against, "difference": case.check()}
    seconds = median_times({"ours": case.ours, "other": case.other}, args.repeats, args.device)
    row["seconds"] = seconds
    row["times_faster"] = seconds["other"] / seconds["ours"]
    row["load"] = os.getloadavg()[0]
    return row


def memory_of(name: str, args: argparse.Namespace, side: str) -> float:
    """Peak memory of one side of a case in this process, in MiB."""
    torch.manual_seed(0)
    case = all_cases(args)[name]()
    # What libraries set up once, such as threads and their buffers, is not of this case.
    warm_up = cases.head_case(cases.VOC.tiny(), args.device)
    warm_up.ours()
    warm_up.other()
    return peak_memory(case.ours if side == "ours" else case.other, args.device)


def as_table(rows: Sequence[Row]) -> str:
    """Rows as a table in Markdown."""
    lines = [
        "| case | against | seconds | times faster | peak MiB | times less | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds, memory = row["seconds"], row.get("peak_mib")
        cells = [
            row["case"],
            row["against"],
            f"{seconds['ours']:.3g} / {seconds['other']:.3g}",
            _ratio(row["times_faster"]),
            f"{memory['ours']:.0f} / {memory['other']:.0f}" if memory else "",
            _ratio(row["times_less_memory"]) if memory else "",
            ", ".join(f"{name} {value:.0e}" for name, value in row["difference"].items()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def environment(args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "torch": torch.__version__,
        "mmseg_otseg": mmseg_otseg.__version__,
        "device": torch.cuda.get_device_name() if args.device != "cpu" else platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "repeats": args.repeats,
        "load_before": os.getloadavg()[0],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: torch sees no GPU; use --device cpu")
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # for the new processes
    found = all_cases(args)
    about, rows = environment(args), []
    for name in found:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows.append(measure(name, args))
        if args.json:
            args.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1))
    print(", ".join(f"{key} {value}" for key, value in about.items()), end="\n\n")
    print("Ours / other:", as_table(rows), sep="\n")
    if not args.growth and not importlib.util.find_spec("ot"):
        print("\nSinkhorn is left out: install POT to compare with it.")


if __name__ == "__main__":
    run_tool(main)
