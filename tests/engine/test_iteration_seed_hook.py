from __future__ import annotations

from mmseg_otseg.engine.hooks.resuming import iteration_seed


def test_processes_and_iterations_have_seeds_of_their_own() -> None:
    seeds = {iteration_seed(s, r, i) for s in range(4) for r in range(4) for i in range(50)}
    assert len(seeds) == 4 * 4 * 50
    assert all(0 <= seed < 2**64 for seed in seeds)
