"""Starts a run from the checkpoint of another run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.hooks.run_check_hook import trained_classes
from mmseg_otseg.engine.parts import neck, segmentor


@HOOKS.register_module()
class FineTuneHook(Hook):
    """Adapts the ``load_from`` checkpoint to this run's classes, and logs which weights carry over.

    Trainable weights carry over by name and shape, whatever the classes are. Class-specific parts
    do not: text embeddings are recomputed, per-class contexts (:class:`LearnablePrompts` with
    ``per_class``) carry over only for the class names that both runs have, and a calibrated
    seen-class bias is dropped. If the checkpoint was trained with labels of this run's unseen
    classes, the hook warns. It does nothing when a run is resumed or tested.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adapt the checkpoint to the run's classes before the model loads it."""
        if runner._resume or not isinstance(runner._train_loop, BaseLoop):
            return
        state = checkpoint.get("state_dict", checkpoint)
        meta = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
        theirs = list(meta.get("classes") or ())
        notes = ["Optimizer and schedule start from the beginning."]
        for key in [key for key in state if ".calibrated_seen_bias." in key]:
            del state[key]
            notes.append("Its calibrated seen-class bias does not carry over.")
        text = getattr(neck(runner.model), "text", None)
        split = getattr(text, "split", None)
        if split is not None and theirs and list(split.classes) != theirs:
            both = [name for name in split.classes if name in theirs]
            notes.append(
                f"It was trained on {len(theirs)} classes ({_some(theirs)}), of which this run has "
                f"{_some(both) if both else 'none'}. Text embeddings are recomputed for this run's "
                "names."
            )
            if getattr(text, "per_class", False):
                _adopt_contexts(text, state, theirs)
        self._tell(runner, state, notes)
        known = trained_classes(checkpoint.get("meta"))
        leaked = [name for name in getattr(split, "unseen_names", ()) if name in known]
        if leaked:
            print_log(
                f"The checkpoint was trained with labels of {_some(leaked)}, which are unseen "
                "classes in this run: their results will not be zero-shot.",
                "current",
                logging.WARNING,
            )

    @staticmethod
    def _tell(runner: Runner, state: dict[str, Any], notes: Sequence[str]) -> None:
        shapes = {
            key.removeprefix("module."): getattr(v, "shape", None) for key, v in state.items()
        }
        weights = [(n, p) for n, p in segmentor(runner.model).named_parameters() if p.requires_grad]
        total = sum(weight.numel() for _, weight in weights)
        anew = [(name, weight) for name, weight in weights if shapes.get(name) != weight.shape]
        carried = total - sum(weight.numel() for _, weight in anew)
        lacking = f", but not {_some([name for name, _ in anew])}" if anew else ""
        print_log(
            f"Training starts from {runner._load_from}: {carried:,} of {total:,} trainable weights "
            f"carry over{lacking}. {' '.join(notes)}",
            "current",
        )


def _adopt_contexts(text: Any, state: dict[str, Any], theirs: Sequence[str]) -> None:
    """Copy per-class contexts by class name to the indices of this run's classes."""
    names = ("neck.text.vocabulary_digest", "neck.text.vocabulary")  # the second until version 0.2
    for key in [key for key in state if key.endswith(names)]:
        contexts = key.rpartition(".")[0] + ".contexts"
        state[contexts] = text.contexts_from(theirs, state[contexts])
        state[key] = text.vocabulary_digest.cpu()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
