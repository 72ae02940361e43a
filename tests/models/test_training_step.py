"""Training steps: compiled as one graph, and without making the host wait for a GPU."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.small_voc import METHODS, build, gradients, losses

# Of aot_eager the backward pass is a graph too.
STEPS = [
    ("otseg", "inductive", "fp32", "aot_eager"),
    ("otseg", "transductive", "bf16", "eager"),
    *((name, "inductive", "fp32", "eager") for name in METHODS[1:]),
]


@pytest.mark.usefixtures("device")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize(("name", "stage", "precision", "backend"), STEPS)
def test_one_graph(name: str, stage: str, precision: str, backend: str) -> None:
    torch._dynamo.reset()
    options = dict(backend=backend, fullgraph=True)  # raises where a graph breaks
    plain, compiled = build(name, precision).train(), build(name, precision, options).train()
    if stage == "transductive":
        plain.neck.train_classes = compiled.neck.train_classes = "all"
        plain.neck.pseudo_labels = compiled.neck.pseudo_labels = True
    expected, found = losses(plain), losses(compiled)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value.item(), rel=1e-5)
    sum(expected.values()).backward()
    sum(found.values()).backward()
    exact = gradients(plain)
    for key, value in gradients(compiled).items():
        assert (value - exact[key]).norm() <= 1e-4 * exact[key].norm()


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
            while frame is not None and "/mmseg_otseg/" not in frame.f_code.co_filename:
                frame = frame.f_back
            if frame is not None:
                self.places.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("stage", ["inductive", "transductive"])
@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_read(name: str, stage: str) -> None:
    model = build(name).train()
    if stage == "transductive":
        model.neck.train_classes, model.neck.pseudo_labels = "all", True
    sum(losses(model).values()).backward()  # makes the tables that are kept
    with Reads() as reads:
        sum(losses(model).values()).backward()
    assert {place for place in reads.places if "/optimal_transport/" not in place} == set()
