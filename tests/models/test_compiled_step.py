"""A compiled training step is one graph, and computes what the step computes that is not."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.small_voc import METHODS, build, gradients, losses

pytestmark = pytest.mark.usefixtures("device")

# Of aot_eager the backward pass is a graph too.
STEPS = [
    ("otseg", "inductive", "fp32", "aot_eager"),
    ("otseg", "transductive", "bf16", "eager"),
    *((name, "inductive", "fp32", "eager") for name in METHODS[1:]),
]


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize(("name", "stage", "precision", "backend"), STEPS)
def test_one_graph(name: str, stage: str, precision: str, backend: str) -> None:
    torch._dynamo.reset()
    options = dict(backend=backend, fullgraph=True)  # raises where a graph breaks
    plain, compiled = build(name, precision).train(), build(name, precision, options).train()
    if stage == "transductive":
        for model in (plain, compiled):
            model.neck.train_classes, model.neck.pseudo_labels = "all", True
    expected, found = losses(plain), losses(compiled)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value.item(), rel=1e-5)
    sum(expected.values()).backward()
    sum(found.values()).backward()
    exact = gradients(plain)
    for key, value in gradients(compiled).items():
        assert (value - exact[key]).norm() <= 1e-4 * exact[key].norm()
