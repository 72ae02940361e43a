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

from mmseg_otseg.errors import UserError


class Draw(int):
    """The index of a sample, together with the seed of its augmentation.

    Addition, subtraction and modulo keep the seed, so that it survives the index arithmetic of
    mmengine's ``ConcatDataset`` and ``RepeatDataset``.

    Args:
        index: Index of the sample.
        run_seed: Seed of the run.
        number: Number of draws before this one in all processes together.
    """

    run_seed: int
    number: int

    def __new__(cls, index: int, run_seed: int, number: int) -> Draw:
        draw = super().__new__(cls, index)
        draw.run_seed = run_seed
        draw.number = number
        return draw

    def __reduce__(self) -> tuple:  # to send it to worker processes
        return Draw, (int(self), self.run_seed, self.number)

    @property
    def seed(self) -> int:
        """A 32-bit seed that depends only on the run's seed and the draw's number."""
        mixed = np.random.SeedSequence((self.run_seed % 2**64, self.number))
        return int(mixed.generate_state(1)[0])

    def _at(self, index: int) -> Draw:
        return Draw(index, self.run_seed, self.number)

    def __add__(self, other: int) -> Draw:
        return self._at(int(self) + other)

    __radd__ = __add__

    def __sub__(self, other: int) -> Draw:
        return self._at(int(self) - other)

    def __mod__(self, other: int) -> Draw:
        return self._at(int(self) % other)


@contextmanager
def seeded_by(index: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators from a draw; restore their states on exit.

    Args:
        index: A :class:`Draw`; a plain index seeds nothing.
    """
    if not isinstance(index, Draw):
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = index.seed
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
    """mmengine's ``InfiniteSampler``, yielding a :class:`Draw` instead of a plain index.

    The draws are numbered over all processes: process r of R makes the draws r, r + R, r + 2R, ...
    One process with batches of 4 and two with batches of 2 therefore see the same samples with the
    same augmentation in each iteration.

    Args:
        dataset: The dataset to draw from; :class:`ZeroShotDataset` uses the seeds of the draws.
        shuffle: Whether to shuffle the samples, differently in each pass.
        seed: Seed of the run; None chooses one at random that all processes share.
    """

    def _indices_of_rank(self) -> Iterator[Draw]:
        return self._draws(0)

    def _draws(self, first: int) -> Iterator[Draw]:
        """This process's draws, starting with number ``first``."""
        start = self.rank + first * self.world_size
        numbered = enumerate(self._infinite_indices())
        for number, index in islice(numbered, start, None, self.world_size):
            yield Draw(index, self.seed, number)

    def skip(self, num_samples: int) -> None:
        """Advance the sampler by some samples without loading them.

        mmengine 0.10.7 has no such method; later versions call it when they resume.

        Args:
            num_samples: Samples that this process has drawn since the start of training.

        Raises:
            UserError: For a negative number.
        """
        if num_samples < 0:
            raise UserError(f"cannot skip {num_samples} samples; give 0 or more.")
        self.indices = self._draws(num_samples)
