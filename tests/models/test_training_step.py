"""A training step in half precision, and without waiting for a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mmseg_otseg
from mmseg_otseg.inference import set_classes
from mmseg_otseg.models.clip import FrozenTower
from tests.helpers.small_configs import build, gradients, losses

pytestmark = pytest.mark.usefixtures("device")

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Largest relative error (by norm) of maps and gradients against float32: a few roundings.
TOLERANCE = {"bf16": 0.04, "fp16": 0.006}


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(
    ("name", "precision"), [("otseg", "bf16"), ("zegot", "fp16"), ("zegclip", "bf16")]
)
def test_a_training_step_is_that_of_float32(name: str, precision: str) -> None:
    exact, rounded = build(name), build(name, precision)
    towers = [part for part in rounded.modules() if isinstance(part, FrozenTower)]
    assert towers
    frozen = {id(p) for tower in towers for p in tower.parameters()}
    for parameter in rounded.parameters():
        kind = HALF[precision] if id(parameter) in frozen else torch.float32
        assert parameter.dtype == kind
        assert parameter.requires_grad == (id(parameter) not in frozen)
    for part, reference in zip(rounded.parameters(), exact.parameters(), strict=True):
        if part.requires_grad:  # what starts from CLIP starts from its unrounded weights
            assert torch.allclose(part, reference, atol=1e-3 if name == "zegot" else 0)
    found, expected = losses(rounded.train()), losses(exact.train())
    for key, value in expected.items():
        assert found[key].dtype == torch.float32
        assert found[key].item() == pytest.approx(value.item(), rel=TOLERANCE[precision])
    sum(found.values()).backward()
    sum(expected.values()).backward()
    assert all(gradient.dtype == torch.float32 for gradient in gradients(rounded).values())
    both = [torch.cat([g.flatten() for g in gradients(m).values()]) for m in (rounded, exact)]
    assert distance(*both) < 3 * TOLERANCE[precision]


def test_a_checkpoint_fits_each_precision() -> None:
    exact, rounded = build("zegot"), build("zegot", "bf16")
    with torch.no_grad():
        for parameter in exact.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    rounded.load_state_dict(exact.state_dict())
    exact.load_state_dict(rounded.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = exact.eval().predict(image)[0].seg_logits.data
        found = rounded.eval().predict(image)[0].seg_logits.data
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=TOLERANCE["bf16"])
        set_classes(rounded, ["dog", "cat"])
        set_classes(exact, ["dog", "cat"])
        expected, found = (model.predict(image)[0].seg_logits.data for model in (exact, rounded))
        assert torch.allclose(found, expected, atol=TOLERANCE["bf16"])


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
