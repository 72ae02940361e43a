"""The sampler numbers the draws over all processes and gives each one a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmseg.registry import DATA_SAMPLERS
from torch.utils.data import Dataset

from mmseg_otseg.datasets import ReproducibleInfiniteSampler
from mmseg_otseg.datasets.samplers import augmentation_seed, seeded_by


class Echo(Dataset):
    """Returns what it is asked for."""

    takes_seeds = True

    def __len__(self) -> int:
        return 7

    def __getitem__(self, idx: tuple[int, int]) -> tuple[int, int]:
        return idx


def sampler_of(rank: int = 0, world_size: int = 1) -> ReproducibleInfiniteSampler:
    with patch("mmengine.dataset.sampler.get_dist_info", return_value=(rank, world_size)):
        return ReproducibleInfiniteSampler(Echo(), seed=3)


def draws(sampler: Iterable, count: int) -> list[Any]:
    return list(islice(iter(sampler), count))


def test_the_order_is_mmengines_and_every_draw_has_a_seed_of_its_own() -> None:
    assert [i for i, _ in draws(sampler_of(), 30)] == draws(InfiniteSampler(range(7), seed=3), 30)
    assert (
        len({augmentation_seed(run, number) for run in range(-1, 3) for number in range(100)})
        == 400
    )
    assert 0 <= augmentation_seed(-1, 0) < 2**32


def test_is_built_as_the_runner_does_and_gives_plain_indices_to_other_datasets() -> None:
    sampler = DATA_SAMPLERS.build(
        dict(type="ReproducibleInfiniteSampler", shuffle=False),
        default_args=dict(dataset=range(7), seed=3),
    )
    assert draws(sampler, 9) == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert len(sampler) == 7 and not sampler.seeds


def test_two_processes_see_what_one_sees() -> None:
    one = draws(sampler_of(), 24)
    two = [draws(sampler_of(rank, 2), 12) for rank in range(2)]
    for step in range(6):  # batches of 4 in one process, of 2 in each of two
        batches = [part[2 * step : 2 * step + 2] for part in two]
        assert sorted(one[4 * step : 4 * step + 4]) == sorted(batches[0] + batches[1])


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_skip_continues_with_the_right_draws(rank: int, world_size: int) -> None:
    whole = draws(sampler_of(rank, world_size), 40)
    resumed = sampler_of(rank, world_size)
    resumed.skip(13)
    assert draws(resumed, 27) == whole[13:]


def numbers() -> tuple[float, float, float]:
    return random.random(), np.random.random(), torch.rand(()).item()


def test_a_seed_decides_all_numbers_and_leaves_no_trace() -> None:
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = numbers(), numbers()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = numbers()
    with seeded_by(5):
        first = numbers()
    with pytest.raises(KeyError), seeded_by(5):
        assert numbers() == first
        raise KeyError
    with seeded_by(6):
        assert all(a != b for a, b in zip(numbers(), first))
    with seeded_by(None):
        assert (before, numbers()) == expected
