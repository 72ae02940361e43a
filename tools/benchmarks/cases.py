"""What is measured of the mathematics: Sinkhorn, the mask loss, the head's training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_otseg.models import FocalDiceLoss, MPSAHead
from mmseg_otseg.ops import sinkhorn
from mmseg_otseg.structures import AlignedFeatures

from .plain import plain_class_maps, plain_focal_dice


class Case(NamedTuple):
    """One thing, done the package's way and another way.

    Attributes:
        ours: Does it the package's way.
        other: Does it the other way.
        against: What the other way is, in a few words.
        check: Computes relative differences between the two, by name.
    """

    ours: Callable[[], object]
    other: Callable[[], object]
    against: str
    check: Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a training step.

    Attributes:
        batch: Images, B.
        classes: Training classes, K.
        prompts: Prompts of a class, N.
        grid: Patches along a side of the image; M is its square.
        width: Joint width, D.
        size: Pixels along a side of the label map.
    """

    batch: int
    classes: int
    prompts: int
    grid: int = 32
    width: int = 512
    size: int = 512

    def tiny(self) -> Sizes:
        """The same, small enough for a test."""
        return replace(self, classes=min(self.classes, 9), grid=6, width=16, size=96)


VOC = Sizes(batch=4, classes=15, prompts=6)
COCO_STUFF = Sizes(batch=1, classes=156, prompts=8)


def relative(value: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest expected magnitude."""
    return float((value - expected).detach().abs().max() / expected.detach().abs().max())


def sinkhorn_case(sizes: Sizes, spread: float, device: str, tol: float = 1e-6) -> Case:
    """Sinkhorn of four images and its gradient against POT's batched solver.

    Args:
        sizes: Of the costs.
        spread: Length of the interval in which the costs are uniform.
        device: Where they are.
        tol: When to stop before 100 iterations.
    """
    from ot.batch import solve_batch

    shape = (sizes.classes * 4, sizes.grid**2, sizes.prompts)
    cost = (spread * torch.rand(shape, device=device)).requires_grad_()
    weight = torch.randn_like(cost)

    def ours(cost: Tensor = cost, *stop: float) -> tuple[Tensor, Tensor]:
        iters, tolerance = stop or (100, tol)
        plan = sinkhorn(cost, 0.05, int(iters), tolerance).plan
        return plan.detach(), torch.autograd.grad(plan, cost, weight.to(cost))[0]

    def other() -> tuple[Tensor, Tensor]:
        plan = solve_batch(
            cost, 0.05, max_iter=100, tol=tol, method="log_sinkhorn", grad="autodiff"
        ).plan
        return plan.detach(), torch.autograd.grad(plan, cost, weight)[0]

    def check() -> dict[str, float]:
        _, gradient = ours(cost.detach().double().requires_grad_(), 2000, 1e-13)  # exact
        our_plan, our_gradient = ours()
        other_plan, other_gradient = other()
        return {
            "plan": relative(our_plan, other_plan),
            "gradient from exact": relative(our_gradient, gradient),
            "POT's gradient from exact": relative(other_gradient, gradient),
        }

    return Case(ours, other, "POT", check)


def random_labels(sizes: Sizes, device: str) -> Tensor:
    """Blobs of all classes with a border of ignored pixels, (B, h, w), int64."""
    coarse = torch.randn(sizes.batch, sizes.classes, 8, 8)
    labels = F.interpolate(coarse, (sizes.size, sizes.size), mode="bilinear").argmax(1)
    labels[:, : sizes.size // 16] = 255
    return labels.to(device)


def loss_case(sizes: Sizes, device: str) -> Case:
    """Mask loss of one class map, forward and backward, against the formulas as they read."""
    size = (sizes.batch, sizes.classes, sizes.grid, sizes.grid)
    logits = torch.randn(size, device=device, requires_grad=True)
    target = random_labels(sizes, device)
    loss = FocalDiceLoss()

    def ours() -> tuple[Tensor, Tensor]:
        total = sum(loss(logits, target).values(), logits.new_zeros(()))
        return total.detach(), torch.autograd.grad(total, logits)[0]

    def other() -> tuple[Tensor, Tensor]:
        total = plain_loss(loss, logits, target)
        return total.detach(), torch.autograd.grad(total, logits)[0]

    return Case(ours, other, "plain formulation", lambda: _differences(ours(), other()))


def plain_loss(loss: FocalDiceLoss, logits: Tensor, target: Tensor) -> Tensor:
    """Both losses of a class map with their weights, by the formulas as they read."""
    focal, dice, pairs = plain_focal_dice(logits, target)
    return (loss.mask_weight * focal + loss.dice_weight * dice) / pairs.clamp_min(1)


def head_case(sizes: Sizes, device: str) -> Case:
    """A training step of OTSeg's head: forward, losses of all maps, backward."""
    head = MPSAHead(num_classes=sizes.classes, embed_dim=sizes.width).to(device).train()
    size = (sizes.batch, sizes.width, sizes.grid, sizes.grid)
    patches = F.normalize(torch.randn(size, device=device), dim=1).requires_grad_()
    queries = torch.randn(
        sizes.batch, sizes.classes, sizes.prompts, sizes.width, device=device
    ).requires_grad_()
    classes = torch.arange(sizes.classes, device=device)
    inputs = AlignedFeatures((patches,), queries, classes, torch.ones_like(classes).bool())
    target = random_labels(sizes, device)
    leaves = [patches, queries, *head.parameters()]
    loss = head.loss_decode
    assert isinstance(loss, FocalDiceLoss)

    def ours() -> tuple[Tensor, ...]:
        losses = [value for maps in head(inputs).values() for value in loss(maps, target).values()]
        return _with_gradients(torch.stack(losses).sum(), leaves)

    def other() -> tuple[Tensor, ...]:
        losses = [plain_loss(loss, maps, target) for maps in plain_class_maps(head, inputs)]
        return _with_gradients(torch.stack(losses).sum(), leaves)

    def check() -> dict[str, float]:
        head.eval()  # no dropout: both compute the same then
        differences = _differences(ours(), other())
        head.train()
        return differences

    return Case(ours, other, "plain formulation", check)


def _with_gradients(loss: Tensor, leaves: list[Tensor | nn.Parameter]) -> tuple[Tensor, ...]:
    return (loss.detach(), *torch.autograd.grad(loss, leaves))


def _differences(ours: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> dict[str, float]:
    """Relative difference of the losses, and the largest one of a gradient."""
    differences = [relative(a, b) for a, b in zip(ours, other) if b.abs().max() > 1e-9]
    return {"loss": differences[0], "gradient": max(differences[1:])}
