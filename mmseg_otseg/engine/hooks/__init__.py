from mmseg_otseg.engine.hooks.iteration_seed_hook import IterationSeedHook

__all__ = ["IterationSeedHook"]
