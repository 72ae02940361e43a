"""What a run that starts from another run's checkpoint takes over from it."""

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
    """Says what training takes over from the checkpoint of ``load_from``, and what it does not.

    Weights that train carry over by name and shape, whatever the classes are. What belongs to
    classes does not: text embeddings are made anew, contexts of single classes
    (:class:`LearnablePrompts` with ``per_class``) carry over for the names that both have, and a
    calibrated seen-class bias is dropped. Resuming and testing are passed over.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adapt the checkpoint to the run's classes, before the model takes it."""
        if runner._resume or not isinstance(runner._train_loop, BaseLoop):
            return
        state = checkpoint.get("state_dict", checkpoint)
        meta = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
        theirs = list(meta.get("classes") or ())
        notes = ["Optimizer and schedule start anew."]
        for key in [key for key in state if ".calibrated_seen_bias." in key]:
            del state[key]
            notes.append("Its calibrated seen-class bias does not carry over.")
        text = getattr(neck(runner.model), "text", None)
        split = getattr(text, "split", None)
        if split is not None and theirs and list(split.classes) != theirs:
            both = [name for name in split.classes if name in theirs]
            notes.append(
                f"It was trained for {len(theirs)} other classes ({_some(theirs)}), of which this "
                f"run has {_some(both) if both else 'none'}: text belongs to names and is made "
                "anew."
            )
            if getattr(text, "per_class", False):
                _adopt_contexts(text, state, theirs)
        self._tell(runner, state, notes)
        known = trained_classes(checkpoint.get("meta"))
        leaked = [name for name in getattr(split, "unseen_names", ()) if name in known]
        if leaked:
            print_log(
                f"The checkpoint was trained with labels of {_some(leaked)}, unseen classes here: "
                "what is measured of them will not be zero-shot.",
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
        lacking = f", not {_some([name for name, _ in anew])}" if anew else ""
        print_log(
            f"Training starts from {runner._load_from}: {carried:,} of {total:,} weights that "
            f"train carry over{lacking}. {' '.join(notes)}",
            "current",
        )


def _adopt_contexts(text: Any, state: dict[str, Any], theirs: Sequence[str]) -> None:
    """Contexts of single classes: those of the same names, in the places of this run's classes."""
    for key in [key for key in state if key.endswith("neck.text.vocabulary")]:
        contexts = key.removesuffix("vocabulary") + "contexts"
        state[contexts] = text.contexts_from(theirs, state[contexts])
        state[key] = text.vocabulary.cpu()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
