"""Run a tool in several processes: launch.py PROCESSES TOOL [ARGUMENTS...]

It works like ``torchrun``, but prints an error of the processes only once and without torchrun's
own report. It reports errors in the tool's arguments and config before any process starts, and
downloads CLIP's weights once. To use several machines, run it on each of them with NNODES,
NODE_RANK, MASTER_ADDR and PORT set.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
from mmseg_otseg_tools.cli import read_config, run


def group(environment: Mapping[str, str]) -> list[str]:
    """torchrun's options for the address where the processes meet."""
    if environment.get("NNODES", "1") == "1" and not environment.get("PORT"):
        return ["--standalone"]  # a free port on this machine
    return [
        *["--nnodes", environment.get("NNODES", "1")],
        *["--node_rank", environment.get("NODE_RANK", "0")],
        *["--master_addr", environment.get("MASTER_ADDR", "127.0.0.1")],
        *["--master_port", environment.get("PORT", "29500")],
    ]


def start(processes: int, tool: str, arguments: Sequence[str]) -> None:
    """Run ``tools/<tool>`` in several processes; exit with the code of the first that failed."""
    if processes > 1:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")  # torchrun and mmengine would set it with a warning
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # hides torchrun's reports of failed processes
    options = [*group(os.environ), "--nproc_per_node", str(processes)]
    command = [*options, str(TOOLS / tool), *arguments, "--launcher", "pytorch"]
    try:
        torchrun.run(torchrun.parse_args(command))
    except ChildFailedError as error:
        failure = first_failure(list(error.failures.values()))
        told = failure.error_file_data.get("message")
        if told and told != "<NONE>":
            print(told, file=sys.stderr)
        elif failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"{tool}: error: process {failure.local_rank} got {name}", file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
    except SignalException as error:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + error.sigval)


def first_failure(failures: Sequence[Any]) -> Any:
    """The failure that caused the others: one the user can fix, otherwise the earliest."""

    def order(failure: Any) -> tuple[bool, float]:
        told = failure.error_file_data
        return not told.get("fixable", False), told.get("time", float(failure.timestamp))

    return min(failures, key=order)


def main() -> None:
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal() or int(sys.argv[1]) < 1:
        print(
            f"the number of processes must be 1 or more, got '{' '.join(sys.argv[1:2])}': call "
            "dist_train.sh CONFIG PROCESSES, or dist_test.sh CONFIG CHECKPOINT PROCESSES",
            file=sys.stderr,
        )
        sys.exit(2)
    processes, name, *arguments = sys.argv[1:]
    tool = importlib.import_module(
        f"mmseg_otseg_tools.{name.removesuffix('.py').replace('/', '.')}"
    )
    sys.argv = [name, *arguments]
    cfg = read_config(tool.parse_args(), *tool.DATA)
    clip = (cfg.get("model") or {}).get("clip")
    if isinstance(clip, dict) and clip.get("pretrained"):
        from mmseg_otseg.models.clip import fetch_clip

        fetch_clip(**clip)
    start(int(processes), name, arguments)


if __name__ == "__main__":
    run(main)
