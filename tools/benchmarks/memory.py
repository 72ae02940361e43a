#!/usr/bin/env python
"""Peak memory of training and testing in each process, counted without the machine that needs it.

Every tensor is followed while it is alive, in a training step with AdamW and in the prediction of
an image, over a CLIP with random weights. What an operation takes inside itself, a GPU's context
and an allocator's slack come on top.
"""

from __future__ import annotations

import itertools
import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mmseg_otseg_cli import run
from mmseg_otseg_cli.options import new_parser

if __name__ == "__main__":
    new_parser(__doc__).parse_args()  # answers --help before the imports, which take seconds

import torch
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the imports from `tools`

from tools.benchmarks.models import build_model, predict, training_step

METHODS = ("otseg", "zegot", "zegclip")
#: Config, side of a training crop, and size of a test image, in pixels.
DATASETS = {
    "VOC": ("voc_512.py", 512, (512, 683)),
    "Context": ("context_480.py", 480, (480, 640)),
    "COCO-Stuff": ("cocostuff_512.py", 512, (512, 683)),
}
BATCHES = (1, 2, 4)
GIB = 2**30


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations make, while these tensors are alive.

    torch's ``MemTracker`` does the same, but not for models with frozen parameters.

    Attributes:
        now: Bytes alive.
        peak: The largest value of ``now`` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Callable, types: Iterable, args: tuple = (), kwargs: Mapping | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = set(_storages((args, kwargs)))
        for storage in _storages(result):
            if storage not in given and storage not in self._known:
                self._known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, size: int) -> None:
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [v.untyped_storage() for v in tree_leaves(values) if isinstance(v, Tensor)]


def training(model: EncoderDecoder, side: int, batch: int) -> Callable[[], None]:
    """What takes a training step with AdamW; it leaves no gradients behind."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning)
    losses = training_step(batch, False, "cpu", side)

    def step() -> None:
        losses(model.train())
        optimizer.step()
        optimizer.zero_grad()

    return step


def testing(model: EncoderDecoder, size: tuple[int, int]) -> Callable[[], object]:
    """What predicts the labels of an image."""
    image = torch.randn(1, 3, *size)
    return lambda: predict(model.eval(), image)


def peak_bytes(step: Callable[[], object]) -> int:
    """Bytes that live at the peak of a step, above those that live before it."""
    with LiveBytes() as live:
        step()
    return live.peak


def count_operations(step: Callable[[], None]) -> int:
    """Floating-point operations of a step: two for each multiply-add of its matrix products."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return counter.get_total_flops()


def row(method: str, dataset: str, precision: str) -> str:
    """A line of the table: GiB of the model, of training steps and of testing; operations."""
    config, side, size = DATASETS[dataset]
    model = build_model(f"{method}/{config}", False, "cpu", precision)
    stored = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    moments = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    one = training(model, side, 1)
    flops = count_operations(one)  # the first step also encodes the text of frozen prompts
    if precision == "fp32":
        flops = count_operations(one)
    peaks = [stored + moments + peak_bytes(training(model, side, batch)) for batch in BATCHES]
    peaks.append(stored + peak_bytes(testing(model, size)))
    cells = [f"{stored / GIB:.2f}", *(f"{peak / GIB:.2f}" for peak in peaks)]
    return f"| {method} | {dataset} | {precision} | {' | '.join(cells)} | {flops / 1e12:.2f} |"


def main() -> None:
    batches = " | ".join(f"training, {batch}" for batch in BATCHES)
    print(f"| method | data | tower | model | {batches} | testing | TFLOP |")
    print(f"|---|---|---|{'---|' * (len(BATCHES) + 3)}")
    for method, dataset in itertools.product(METHODS, DATASETS):
        for precision in ("fp32", "bf16") if method == "otseg" else ("fp32",):
            print(row(method, dataset, precision), flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    run(main)
