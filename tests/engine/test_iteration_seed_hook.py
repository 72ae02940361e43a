from __future__ import annotations

from types import SimpleNamespace

import torch
from mmseg.registry import HOOKS

from mmseg_otseg.engine.hooks.resuming import iteration_seed


def test_an_iteration_draws_the_same_whatever_came_before() -> None:
    hook = HOOKS.build(dict(type="IterationSeedHook"))

    def draw(seed: int, iteration: int) -> list[float]:
        hook.before_train_iter(SimpleNamespace(seed=seed, iter=iteration), iteration)
        return torch.rand(4).tolist()

    first = [draw(0, iteration) for iteration in range(3)]
    torch.rand(7)
    assert draw(0, 2) == first[2]
    assert draw(1, 2) != first[2]
    assert len({tuple(numbers) for numbers in first}) == 3


def test_processes_and_iterations_have_seeds_of_their_own() -> None:
    seeds = {iteration_seed(s, r, i) for s in range(4) for r in range(4) for i in range(50)}
    assert len(seeds) == 4 * 4 * 50
    assert all(0 <= seed < 2**64 for seed in seeds)
