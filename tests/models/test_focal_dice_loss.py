from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from mmseg.registry import MODELS
from torch import Tensor, distributed

from mmseg_otseg.errors import UserError
from mmseg_otseg.models import FocalDiceLoss
from mmseg_otseg.ops import focal_dice_sums

pytestmark = pytest.mark.usefixtures("device")


def example(labels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    logits = torch.randn(2, 4, 4, 4, generator=generator, requires_grad=True)
    return logits, torch.randint(0, labels, (2, 16, 16), generator=generator)


def test_weights_and_pairs() -> None:
    logits, target = example()
    sums = focal_dice_sums(logits, target)
    losses = MODELS.build({"type": "FocalDiceLoss", "mask_weight": 7.0, "dice_weight": 3.0})(
        logits, target
    )
    assert sums.pairs == 6
    assert torch.allclose(losses["loss_mask"], 7 * sums.focal / 6)
    assert torch.allclose(losses["loss_dice"], 3 * sums.dice / 6)


def test_a_typo_in_what_is_ignored() -> None:
    with pytest.raises(UserError, match=r"negative, masked.*'maskd'"):
        FocalDiceLoss(ignored="maskd")(*example())


@pytest.mark.parametrize("ignored", ["negative", "masked"])
def test_without_a_labeled_pixel_nothing_is_learnt(ignored: str) -> None:
    logits, target = example()
    losses = FocalDiceLoss(ignored=ignored)(logits, torch.full_like(target, 255))
    assert losses["loss_mask"] == 0 and losses["loss_dice"] == 0
    sum(losses.values()).backward()
    assert logits.grad is not None and not logits.grad.any()


def _share_of(rank: int, folder: Path) -> None:
    """What process ``rank`` of two makes of a batch of its own."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'group'}", rank=rank, world_size=2
    )
    logits, target = example(labels=3 if rank else 1)
    with torch.no_grad():
        torch.save(FocalDiceLoss()(logits, target), folder / f"{rank}.result")
    distributed.destroy_process_group()


def test_pairs_are_averaged_over_the_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_share_of, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    for rank, labels in enumerate((1, 3)):
        sums = focal_dice_sums(*example(labels))
        losses = torch.load(tmp_path / f"{rank}.result")
        assert sums.pairs == 2 * labels
        assert torch.allclose(losses["loss_mask"], 100 * sums.focal / 4)
        assert torch.allclose(losses["loss_dice"], sums.dice / 4)
