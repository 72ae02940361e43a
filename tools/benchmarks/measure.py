"""Time and peak memory of two ways to do the same thing."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

MIB = 2**20


def median_times(
    sides: dict[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, float]:
    """Seconds that each side takes: median of ``repeats`` runs, the sides in turn.

    Whatever else the machine does then hits all of them alike. Each runs once before it counts.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            gc.collect()
            _synchronize(device)
            start = time.perf_counter()
            run()
            _synchronize(device)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(run: Callable[[], object], device: str) -> float:
    """Largest memory in use while ``run`` runs, above what is in use before, in MiB.

    On a GPU: of torch's allocator. On a CPU: resident memory of this process, as Linux counts it.
    The process should be a fresh one, since memory that an earlier run gave back to the C library
    does not show.
    """
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the recorded peak to what is in use now
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / MIB


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
