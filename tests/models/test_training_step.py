"""Training steps do not make the host wait for a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

import mmseg_otseg
from tests.helpers.small_configs import build, losses

PACKAGE = f"{Path(mmseg_otseg.__file__).parent}/"
# What makes the host read numbers of a tensor. Sinkhorn's stopping rule, which reads one only once
# in a while on a GPU, is left out below.
WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique")


class Reads(TorchDispatchMode):
    """Collects where an operation of this package makes the host read a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in WAITING:
            frame: Any = sys._getframe()
            while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
                frame = frame.f_back
            if frame is not None:
                self.places.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "stage"),
    [("otseg", "inductive"), ("otseg", "transductive"), ("zegot", "inductive")],
)
def test_nothing_is_read(name: str, stage: str) -> None:
    model = build(name).train()
    if stage == "transductive":
        model.neck.train_classes = "pseudo"
    sum(losses(model).values()).backward()  # makes the tables that are kept
    with Reads() as reads:
        sum(losses(model).values()).backward()
    rest = {place for place in reads.places if "/optimal_transport/" not in place}
    assert rest == set() and reads.places  # those of the stopping rule are found
