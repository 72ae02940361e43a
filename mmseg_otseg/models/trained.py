"""A base for modules that check whether a checkpoint holds all of their trainable weights."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.models.clip import FrozenTower

Module = TypeVar("Module", bound="TrainedModule")


class TrainedModule(BaseModule):
    """Refuses to predict with weights that a checkpoint has left as they were built.

    mmengine only prints which tensors of a checkpoint were missing or had another shape. Here,
    after such a checkpoint, switching to evaluation is an error; switching to training only
    warns, because training may start from a part of the weights. A checkpoint may leave
    out a frozen tower, but not a part of one.

    Raises:
        UserError: On loading NaN or infinity. On switching to evaluation, or on loading in
            evaluation: a tensor that trains, or a part of a tower that the checkpoint brings, was
            missing or had another shape.
    """

    _random: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_post_hook(_refuse_in_evaluation)

    def train(self: Module, mode: bool = True) -> Module:
        """Switch to training or evaluation."""
        if mode and self._random is not None:
            print_log(f"Training starts without them: {self._random}", "current", logging.WARNING)
            self._random = None
        self._refuse_random(mode)
        super().train(mode)
        return self

    def _refuse_random(self, training: bool) -> None:
        if not training and self._random is not None:
            raise UserError(
                f"{self._random}. Predictions would come from random weights: take a checkpoint "
                "that was trained with this config, or the config of this checkpoint."
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        file = local_metadata.get("file", "the checkpoint")
        for name in [n for n, _ in (*self.named_parameters(), *self.named_buffers())]:
            found = state_dict.get(prefix + name)
            if not isinstance(found, Tensor) or name.endswith("attn_mask"):
                continue  # the mask of a causal tower is infinite on purpose
            if not found.isfinite().all():
                raise UserError(f"{file} holds NaN or infinity in {prefix}{name}")
        towers = [name for name, part in self.named_modules() if isinstance(part, FrozenTower)]
        left_out = tuple(
            f"{name}."
            for name in towers
            if not any(key.startswith(f"{prefix}{name}.module.") for key in state_dict)
        )
        random, kind = [], "weights that train"
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad and name.startswith(left_out):
                continue
            found = state_dict.get(prefix + name)
            if not isinstance(found, Tensor) or found.shape != parameter.shape:
                random.append(prefix + name)
                kind = kind if parameter.requires_grad else "a part of the weights it brings"
        self._random = None
        if random:
            more = f" and {len(random) - 3} more" if len(random) > 3 else ""
            self._random = (
                f"{file} lacks {kind}, or has them in another shape: {', '.join(random[:3])}{more}"
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def _refuse_in_evaluation(module: TrainedModule, _: Any) -> None:
    module._refuse_random(module.training)
