"""Running the tools, in this process or in others, and reading what they measured."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from mmseg.visualization import SegLocalVisualizer


def forget_runs() -> None:
    """Drop mmengine's loggers and the like: a run that begins in the same second would get them."""
    for singleton in (MMLogger, MessageHub, Visualizer, SegLocalVisualizer):
        singleton._instance_dict.clear()


def run_tool(name: str, *arguments: object) -> None:
    """Run ``tools/<name>.py``, or a module of ``mmseg_otseg_cli``, in this process.

    The tool finds mmseg's components itself: the scope of the tests is not there meanwhile.
    """
    forget_runs()
    folder, _, module = name.rpartition("/")
    package = f"tools.{folder}" if folder in ("shapes", "benchmarks") else "mmseg_otseg_cli"
    tool = import_module(f"{package}.{module}")
    with (
        patch.object(sys, "argv", [name, *map(str, arguments)]),
        patch.dict(DefaultScope._instance_dict, clear=True),
        patch.dict(os.environ),
    ):
        tool.main()


def start_tool(
    name: str, *arguments: object, first: Callable[[], object] | None = None, **environment: str
) -> BaseProcess:
    """Run a tool in a process of its own: a copy of this one, which spares it all imports.

    Args:
        name: Of the tool.
        arguments: Of the tool.
        first: What the process does before.
        environment: Added to the environment of this process.
    """

    def run() -> None:
        os.environ.update(environment)
        torch.set_num_threads(1)  # threads of this process are not in its copy
        if first is not None:
            first()
        run_tool(name, *arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def start_processes(
    number: int, name: str, *arguments: object, first: Callable[[], object] | None = None
) -> list[BaseProcess]:
    """Start a tool in ``number`` processes of one group, as torchrun would; ``first`` in one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [
        start_tool(
            name,
            *arguments,
            "--launcher",
            "pytorch",
            first=first if rank == 0 else None,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(number),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in range(number)
    ]


def run_processes(number: int, name: str, *arguments: object) -> None:
    """Run a tool in ``number`` processes of one group, as torchrun would."""
    processes = start_processes(number, name, *arguments)
    for process in processes:
        process.join(120)
    exits = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert exits == [0] * number


def last_metrics(run: Path) -> dict[str, float]:
    """The last numbers that the last run in a folder wrote, be it of training or of testing."""
    logs = [*run.glob("*/vis_data/scalars.json"), *run.glob("*/*.json")]
    last = max(logs, key=lambda file: file.stat().st_mtime_ns)
    return json.loads(last.read_text().splitlines()[-1])
