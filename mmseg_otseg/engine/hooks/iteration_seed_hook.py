"""Makes torch's random numbers depend only on the run's seed, the rank and the iteration."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed torch (every device) before each training iteration from (run seed, rank, iteration).

    A checkpoint does not hold the state of the random generators, so a resumed run would draw
    different dropout masks than the run it continues. With this hook, the masks do not depend on
    earlier random numbers. The augmentations are seeded by ``ReproducibleInfiniteSampler``; a run
    that resumes without it is told so.

    Each process draws different masks. One process with batches of 4 and two with batches of 2 see
    the same samples but drop different units, so with dropout their results differ as if they had
    different seeds.
    """

    priority = "VERY_LOW"  # after every hook that draws random numbers

    def before_train(self, runner: Runner) -> None:
        """Say what a resumed run does not repeat."""
        if runner.iter > 0 and not getattr(runner.train_dataloader.sampler, "seeds", False):
            print_log(
                "The resumed run augments its images in another way than an uninterrupted one, "
                "because the random numbers do not come from the sampler: use "
                "sampler.type='ReproducibleInfiniteSampler' with a ZeroShotDataset as the "
                "outermost dataset.",
                "current",
                logging.WARNING,
            )

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Seed the generators of iteration ``runner.iter`` (counted from 0)."""
        torch.manual_seed(iteration_seed(runner.seed, get_rank(), runner.iter))


def iteration_seed(seed: int, rank: int, iteration: int) -> int:
    """A 64-bit hash of the arguments, so that successive iterations get uncorrelated seeds."""
    return int(np.random.SeedSequence([seed, rank, iteration]).generate_state(1, np.uint64)[0])
