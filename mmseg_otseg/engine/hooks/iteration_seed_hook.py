"""Randomness on the device as a function of the iteration."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed torch (every device) before each training iteration from (run seed, rank, iteration).

    A checkpoint does not hold the state of the random generators, so a resumed run would draw other
    dropout masks than the run it continues. With this hook they depend on nothing that came before.

    Each process has masks of its own. One process with batches of 4 and two with batches of 2 see
    the same samples (see ``ReproducibleInfiniteSampler``), but drop other units: with dropout,
    their results differ as those of two seeds do.
    """

    priority = "VERY_LOW"  # after any hook that draws numbers of its own

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        """Seed the generators of iteration ``runner.iter`` (counted from 0)."""
        torch.manual_seed(iteration_seed(runner.seed, get_rank(), runner.iter))


def iteration_seed(seed: int, rank: int, iteration: int) -> int:
    """A 64-bit seed that is well mixed, so that neighboring iterations share nothing."""
    return int(np.random.SeedSequence([seed, rank, iteration]).generate_state(1, np.uint64)[0])
