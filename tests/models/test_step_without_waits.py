"""Training steps in which a GPU is never waited for, shown without a GPU.

The step runs on fake CUDA tensors, which have shapes but no values: reading one raises. A second
step, when all tables are in their place, must not touch a tensor of the host either.

Autograd's engine asks the driver for a device before it runs a node, so the nodes of the graph are
called here one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_otseg.models.necks import dlfa_neck
from mmseg_otseg.ops.fused import FUSED
from mmseg_otseg.ops.mask_loss import bilinear
from mmseg_otseg.ops.optimal_transport import solvers
from tests.helpers.small_configs import CLIP, small

METHODS = ("otseg", "zegot", "zegclip")
IMAGE = (2, 3, 64, 64)


class OnlyOnTheDevice(TorchDispatchMode):
    """Collects the operations that touch a tensor of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.wrong = 0, list[str]()
        self.names = set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += 1
        self.names.add(str(func))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, Tensor) and value.device.type != "cuda":
                self.wrong.append(str(func))
        return result


@pytest.fixture(autouse=True)
def _tables() -> Iterator[None]:
    """No table of fake tensors stays behind."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)
    bilinear.bilinear_axis.cache_clear()
    dlfa_neck._class_tables.cache_clear()


def build(name: str, **clip: Any) -> Any:
    torch.manual_seed(0)
    config = small(f"{name}/voc_512.py", Path("none")).model
    config.clip = ConfigDict(**CLIP, **clip)
    return MODELS.build(config).train()


def losses(model: nn.Module, device: str) -> Tensor:
    label = torch.zeros(1, 64, 64, dtype=torch.int64, device=device)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label))] * 2
    found = model.loss(torch.ones(IMAGE, device=device), samples)
    return model.parse_losses(found)[0]


def run_backward(loss: Tensor) -> dict[int, Tensor]:
    """Gradients of the leaves, by the id of each."""
    order, visited = [], set()
    stack = [(loss.grad_fn, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node is not None and node not in visited:
            visited.add(node)
            stack += [(node, True), *((parent, False) for parent, _ in node.next_functions)]
    incoming: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    incoming[loss.grad_fn][0] = torch.ones_like(loss)
    leaves = {}
    with torch.no_grad():
        for node in reversed(order):
            given = incoming.pop(node, {})
            if hasattr(node, "variable"):
                leaves[id(node.variable)] = given[0]
                continue
            outputs = len(node._input_metadata)
            run = node if callable(node) else node.apply  # of C++, or of Python
            gradients = run(*[given.get(index) for index in range(outputs)])
            gradients = gradients if isinstance(gradients, tuple) else (gradients,)
            for (parent, index), gradient in zip(node.next_functions, gradients):
                if parent is not None and gradient is not None:
                    wanted = parent._input_metadata[index]
                    gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)
                    old = incoming[parent].get(index)
                    incoming[parent][index] = gradient if old is None else old + gradient
    return leaves


def test_the_nodes_called_one_by_one_are_autograd() -> None:
    model = build("otseg")
    torch.manual_seed(0)
    found = run_backward(losses(model, "cpu"))
    torch.manual_seed(0)
    losses(model, "cpu").backward()
    learning = [p for p in model.parameters() if p.requires_grad]
    for parameter in learning:
        difference = (found[id(parameter)] - parameter.grad).norm()
        assert difference <= 1e-4 * parameter.grad.norm()


def trace(model: nn.Module) -> OnlyOnTheDevice:
    losses(model, "cpu")  # makes the tables of the host
    watch = OnlyOnTheDevice()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to("cuda")
        losses(model, "cuda")  # sends them
        images = torch.ones(IMAGE, device="cuda")
        label = torch.zeros(1, 64, 64, dtype=torch.int64, device="cuda")
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label))] * 2
        with watch:
            loss = model.parse_losses(model.loss(images, samples))[0]
            forward = watch.count
            gradients = run_backward(loss)
    learning = [p for p in model.parameters() if p.requires_grad]
    assert loss.device.type == "cuda" and forward > 100 and watch.count - forward > 100
    assert learning and all(gradients[id(p)].shape == p.shape for p in learning)
    return watch


needs_fakes = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10),
    reason="before torch 2.10, moving a module to a fake GPU asks for a driver",
)


@needs_fakes
@pytest.mark.parametrize(
    ("name", "stage"),
    [(name, "inductive") for name in METHODS]
    + [
        ("otseg", "transductive"),
        pytest.param("otseg", "supervised", marks=pytest.mark.slow),  # less than the transductive
    ],
)
def test_nothing_waits(name: str, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for Sinkhorn's look at its stopping rule, every 10 iterations: here it takes none."""
    monkeypatch.setattr(solvers, "ITERATIONS_PER_SYNC", 1000)
    model = build(name)
    if stage != "inductive":
        model.neck.train_classes = "all"
        model.neck.pseudo_labels = stage == "transductive"
    assert trace(model).wrong == []


@needs_fakes
@pytest.mark.parametrize("name", ["otseg", "zegot"])
def test_nothing_waits_with_the_fused_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, stopping rule included: the kernels have their own."""
    pytest.importorskip("triton", reason="this torch comes without Triton")
    monkeypatch.setenv(FUSED, "1")
    watch = trace(build(name))
    assert watch.wrong == []
    operations = {"sinkhorn_score", "sinkhorn_score_gradient", "focal_dice"}
    if name == "otseg":  # its decoder attends by the plan
        operations |= {"sinkhorn", "sinkhorn_gradient"}
    ours = {each for each in watch.names if each.startswith("mmseg_otseg.")}
    assert ours == {f"mmseg_otseg.{operation}.default" for operation in operations}


@needs_fakes
def test_nothing_waits_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "ITERATIONS_PER_SYNC", 1000)
    assert trace(build("otseg", precision="bf16")).wrong == []


@needs_fakes
def test_a_wait_would_be_seen() -> None:
    """Sinkhorn's stopping rule itself, and a table that is sent in every step."""
    with pytest.raises(DataDependentOutputException):
        trace(build("otseg"))
    watch = OnlyOnTheDevice()
    with FakeTensorMode(), watch:
        torch.tensor([1, 2]).to("cuda")
    assert watch.wrong


def test_pseudo_labels_only_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = build("otseg"), []
    original = type(model.decode_head)._pseudo_labels
    monkeypatch.setattr(
        type(model.decode_head),
        "_pseudo_labels",
        lambda self, *args: (calls.append(1), original(self, *args))[1],
    )
    for classes, self_trains, number in (
        ("seen", True, 0),
        ("all", False, 0),
        ("all", True, 1),
    ):
        model.neck.train_classes, model.neck.pseudo_labels = classes, self_trains
        calls.clear()
        losses(model, "cpu")
        assert len(calls) == number
