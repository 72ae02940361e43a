"""Draws carry an index and a seed; the sampler numbers them over all processes."""

from __future__ import annotations

import copy
import pickle
import random
from itertools import islice
from unittest.mock import patch

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmseg.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader, Dataset

from mmseg_otseg.datasets import Draw, ReproducibleInfiniteSampler
from mmseg_otseg.datasets.samplers import seeded_by


def sampler_of(rank: int = 0, world_size: int = 1, size: int = 7, **kwargs):
    with patch("mmengine.dataset.sampler.get_dist_info", return_value=(rank, world_size)):
        return ReproducibleInfiniteSampler(range(size), seed=3, **kwargs)


def pairs(draws, count: int) -> list[tuple[int, int]]:
    return [(int(draw), draw.seed) for draw in islice(draws, count)]


class Echo(Dataset):
    """Returns what it is asked for, and the seed that came with it."""

    def __len__(self):
        return 7

    def __getitem__(self, idx):
        return int(idx), idx.seed


def test_draw_is_its_index():
    draw = Draw(5, run_seed=3, number=11)
    assert draw == 5 and isinstance(draw, int) and list(range(9))[draw] == 5
    assert 0 <= draw.seed < 2**32
    assert 0 <= Draw(5, run_seed=-1, number=0).seed < 2**32


def test_seed_depends_on_run_and_number_only():
    assert Draw(5, 3, 11).seed == Draw(2, 3, 11).seed
    seeds = {Draw(0, run, number).seed for run in range(4) for number in range(100)}
    assert len(seeds) == 400


def test_draw_survives_copies_and_index_arithmetic():
    draw = Draw(5, 3, 11)
    for same in (pickle.loads(pickle.dumps(draw)), copy.deepcopy(draw)):
        assert same == 5 and same.seed == draw.seed
    for moved, index in ((draw - 2, 3), (draw % 3, 2), (draw + 4, 9), (4 + draw, 9)):
        assert isinstance(moved, Draw) and moved == index and moved.seed == draw.seed


def test_same_order_as_mmengines_sampler():
    ours = [int(draw) for draw in islice(iter(sampler_of()), 30)]
    theirs = list(islice(iter(InfiniteSampler(range(7), seed=3)), 30))
    assert ours == theirs


def test_is_registered_and_built_as_the_runner_does():
    sampler = DATA_SAMPLERS.build(
        dict(type="ReproducibleInfiniteSampler", shuffle=False),
        default_args=dict(dataset=range(7), seed=3),
    )
    assert [int(draw) for draw in islice(iter(sampler), 9)] == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert len(sampler) == 7


def test_two_processes_see_what_one_sees():
    one = pairs(iter(sampler_of()), 24)
    two = [pairs(iter(sampler_of(rank, 2)), 12) for rank in range(2)]
    for step in range(6):  # batches of 4 in one process, of 2 in each of two
        batches = [part[2 * step : 2 * step + 2] for part in two]
        assert sorted(one[4 * step : 4 * step + 4]) == sorted(batches[0] + batches[1])


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_skip_carries_the_right_draws(rank, world_size):
    whole = pairs(iter(sampler_of(rank, world_size)), 40)
    resumed = sampler_of(rank, world_size)
    resumed.skip(13)
    assert pairs(iter(resumed), 27) == whole[13:]
    resumed.skip(0)
    assert pairs(iter(resumed), 40) == whole


def test_negative_skip():
    with pytest.raises(ValueError, match="-1"):
        sampler_of().skip(-1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_through_a_data_loader(num_workers):
    loader = DataLoader(
        Echo(), batch_size=4, sampler=sampler_of(), num_workers=num_workers, collate_fn=list
    )
    batches = list(islice(iter(loader), 5))
    assert [pair for batch in batches for pair in batch] == pairs(iter(sampler_of()), 20)


def numbers() -> tuple[float, float, float]:
    return random.random(), np.random.random(), torch.rand(()).item()


def test_seeded_by_a_draw():
    with seeded_by(Draw(0, 3, 11)):
        first = numbers()
    numbers()
    with seeded_by(Draw(4, 3, 11)):
        assert numbers() == first
    with seeded_by(Draw(0, 3, 12)):
        assert all(a != b for a, b in zip(numbers(), first))


def test_seeding_leaves_no_trace():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = numbers(), numbers()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = numbers()
    with pytest.raises(KeyError), seeded_by(Draw(0, 3, 11)):
        numbers()
        raise KeyError
    assert (before, numbers()) == expected


def test_a_plain_index_seeds_nothing():
    np.random.seed(0)
    expected = np.random.random(2)
    np.random.seed(0)
    with seeded_by(3):
        first = np.random.random()
    assert [first, np.random.random()] == expected.tolist()
