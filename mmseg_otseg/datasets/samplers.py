"""Sampling in which every draw can be reproduced on its own.

A run that is killed and resumed must see the same samples as a run that is not interrupted.
Therefore the augmentation of a sample depends only on the seed of the run and the number of the
draw, not on earlier random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmseg.registry import DATA_SAMPLERS


def augmentation_seed(run_seed: int, number: int) -> int:
    """The 32-bit seed of the augmentation of a draw.

    Args:
        run_seed: Seed of the run.
        number: Number of draws before this one in all processes together.
    """
    return int(np.random.SeedSequence((run_seed % 2**64, number)).generate_state(1)[0])


@contextmanager
def seeded_by(seed: int | None) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators; restore their states on exit.

    Args:
        seed: A 32-bit seed; None leaves the generators as they are.
    """
    if seed is None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@DATA_SAMPLERS.register_module()
class ReproducibleInfiniteSampler(InfiniteSampler):
    """mmengine's ``InfiniteSampler``, which gives each draw a seed for its augmentation.

    It yields ``(index, seed)`` for a dataset that takes seeds (``takes_seeds = True``), as
    :class:`ZeroShotDataset` does, and plain indices for any other. The draws are numbered over all
    processes: process r of R makes the draws r, r + R, r + 2R, ... One process with batches of 4
    and two with batches of 2 therefore see the same samples with the same augmentation in each
    iteration.

    Args:
        dataset: The dataset to draw from.
        shuffle: Whether to shuffle the samples, differently in each pass.
        seed: Seed of the run; None chooses one at random that all processes share.

    Attributes:
        seeds: Whether it yields seeds.
    """

    @property
    def seeds(self) -> bool:
        return getattr(self.dataset, "takes_seeds", False)

    def _indices_of_rank(self) -> Iterator[int | tuple[int, int]]:
        return self._draws(0)

    def _draws(self, first: int) -> Iterator[int | tuple[int, int]]:
        """This process's draws, starting with its draw number ``first``."""
        start = self.rank + first * self.world_size
        numbered = enumerate(self._infinite_indices())
        for number, index in islice(numbered, start, None, self.world_size):
            yield (index, augmentation_seed(self.seed, number)) if self.seeds else index

    def skip(self, num_samples: int) -> None:
        """Advance the sampler by some samples without loading them.

        mmengine 0.10.7 has no such method; later versions call it when they resume.

        Args:
            num_samples: Samples that this process has drawn since the start of training.
        """
        self.indices = self._draws(num_samples)
