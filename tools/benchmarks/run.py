#!/usr/bin/env python
"""Measure the package against other ways to compute the same, and print the ratios.

Time is the median of several runs, both sides in turn in one process, which is new for every case:
memory that another case leaves behind in it would make large temporaries cheap. Peak memory is
measured in a new process for each side: on a CPU as resident memory above what it was before, on a
GPU as torch's allocator counts it. Weights are random; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the imports from `tools`
from mmseg_otseg_cli import run as run_tool
from mmseg_otseg_cli.benchmark import markdown_table
from mmseg_otseg_cli.options import new_parser


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="cases whose name has a WORD; a wrong one: a list"
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    parser.add_argument("--tiny", action="store_true", help="very small sizes, to try the tool")
    return parser.parse_args()


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds


import torch

from mmseg_otseg import __version__
from tools.benchmarks import cases, models
from tools.benchmarks.cases import Case

Row = dict[str, Any]
MIB = 2**20


def all_cases(device: str, tiny: bool) -> dict[str, Callable[[], Case]]:
    """Name of every case, and what builds it."""
    sizes = {"VOC": cases.VOC, "COCO-Stuff": cases.COCO_STUFF}
    if tiny:
        sizes = {name: each.tiny() for name, each in sizes.items()}
    found: dict[str, Callable[[], Case]] = {}
    if importlib.util.find_spec("ot"):
        for name, each in sizes.items():
            for spread in (0.1, 0.5):
                case = partial(cases.sinkhorn_case, each, spread, device)
                found[f"sinkhorn {name}, spread {spread}"] = case
            found[f"sinkhorn {name}, 100 iterations"] = partial(case, tol=0.0)
    for name, each in sizes.items():
        found[f"loss {name}"] = partial(cases.loss_case, each, device)
        found[f"head step {name}"] = partial(cases.head_case, each, device)
    found["ZegOT step VOC"] = partial(models.zegot_case, tiny, device)
    found["inference VOC"] = partial(models.inference_case, tiny, device)
    for kind in ("bf16",) if device == "cpu" else ("bf16", "fp16"):
        step, inference = models.precision_step_case, models.precision_inference_case
        found[f"OTSeg step VOC, {kind}"] = partial(step, tiny, device, kind)
        found[f"inference VOC, {kind}"] = partial(inference, tiny, device, kind)
    return found


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process that has imported everything but computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tools.benchmarks.run"])
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *arguments).result()


def times_of(name: str, args: argparse.Namespace) -> Row:
    """Differences and times of a case in this process: a row without memory."""
    torch.manual_seed(0)
    case = all_cases(args.device, args.tiny)[name]()
    row: Row = {"case": name, "against": case.against, "difference": case.check()}
    times: dict[str, list[float]] = {"ours": [], "other": []}
    for turn in range(args.repeats + 1):  # what else the machine does hits both sides alike
        for side, values in times.items():
            gc.collect()
            start = time.perf_counter()
            getattr(case, side)()
            if args.device != "cpu":
                torch.cuda.synchronize()
            if turn:  # each runs once before it counts
                values.append(time.perf_counter() - start)
    seconds = {side: statistics.median(values) for side, values in times.items()}
    return row | {"seconds": seconds, "times_faster": seconds["other"] / seconds["ours"]}


def memory_of(name: str, args: argparse.Namespace, side: str) -> float:
    """Largest memory in use while a side runs, above what is in use before, in MiB.

    On a GPU: of torch's allocator. On a CPU: resident memory of this process, as Linux counts it.
    """
    torch.manual_seed(0)
    case = all_cases(args.device, args.tiny)[name]()
    # What libraries set up once, such as threads and their buffers, is not of this case.
    warm_up = cases.head_case(cases.VOC.tiny(), args.device)
    warm_up.ours()
    warm_up.other()
    gc.collect()
    if args.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        getattr(case, side)()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the recorded peak to what is in use now
    before = resident("VmRSS")
    getattr(case, side)()
    return (resident("VmHWM") - before) / MIB


def resident(field: str) -> int:
    """Bytes of this process that Linux gives under a name."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def as_table(rows: Sequence[Row]) -> str:
    """Rows as a table in Markdown."""
    head = "case", "against", "seconds", "times faster", "peak MiB", "times less", "difference"
    lines = []
    for row in rows:
        seconds, memory = row["seconds"], row["peak_mib"]
        cells = [
            row["case"],
            row["against"],
            f"{seconds['ours']:.3g} / {seconds['other']:.3g}",
            f"{row['times_faster']:.1f}",
            f"{memory['ours']:.0f} / {memory['other']:.0f}",
            f"{row['times_less_memory']:.1f}",
            ", ".join(f"{name} {value:.0e}" for name, value in row["difference"].items()),
        ]
        lines.append(cells)
    return markdown_table(head, lines)


def main() -> None:
    args = parse_args()
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # for the new processes
    found, words = all_cases(args.device, args.tiny), [word.lower() for word in args.only or [""]]
    names = [name for name in found if any(word in name.lower() for word in words)]
    if not names:
        raise ValueError(f"--only: no case has a name like that. There are: {', '.join(found)}")
    about = {
        "torch": torch.__version__,
        "mmseg_otseg": __version__,
        "device": torch.cuda.get_device_name() if args.device != "cpu" else platform.machine(),
        "threads": torch.get_num_threads(),
        "repeats": args.repeats,
        "load_before": os.getloadavg()[0],
    }
    rows = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        row = in_new_process(times_of, name, args)
        memory = {side: in_new_process(memory_of, name, args, side) for side in ("ours", "other")}
        row |= {"peak_mib": memory, "times_less_memory": memory["other"] / max(memory["ours"], 1)}
        rows.append(row)
        if args.json:
            args.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1))
    print(", ".join(f"{key} {value}" for key, value in about.items()), end="\n\n")
    print("Ours / other:", as_table(rows), sep="\n")
    if not importlib.util.find_spec("ot"):
        print("\nSinkhorn is left out: install POT to compare with it.")


if __name__ == "__main__":
    run_tool(main)
