"""A base for modules that check whether a checkpoint holds all of their trainable weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from mmseg_otseg.errors import UserError, listed
from mmseg_otseg.models.clip import FrozenTower

Module = TypeVar("Module", bound="TrainedModule")


class TrainedModule(BaseModule):
    """Refuses to predict with weights that a checkpoint has left as they were built.

    mmengine only prints which tensors of a checkpoint were missing or had another shape. Here,
    after such a checkpoint, switching to evaluation is an error; switching to training only
    warns, because training may start from a part of the weights. A checkpoint may leave
    out a frozen tower, but not a part of one.

    Attributes:
        training_only: Names of parts that only training uses, such as the decoder of an auxiliary
            loss. A checkpoint without them can be tested.

    Raises:
        UserError: On loading NaN or infinity. On switching to evaluation, or on loading in
            evaluation: a tensor that trains, or a part of a tower that the checkpoint brings, was
            missing or had another shape.
    """

    training_only: ClassVar[tuple[str, ...]] = ()
    _lacking: tuple[str, ...] = ()  # parameters that the last checkpoint left as they were
    _checkpoint, _prefix = "the checkpoint", ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_post_hook(_check_loaded)

    def train(self: Module, mode: bool = True) -> Module:
        """Switch to training or evaluation."""
        if mode and self._lacking:
            print_log(
                f"{self._describe(self._lacking)}: training starts from new ones",
                "current",
                logging.WARNING,
            )
            self._lacking = ()
        elif not mode:
            self._refuse_to_predict()
        super().train(mode)
        return self

    def _refuse_to_predict(self) -> None:
        lacking = [name for name in self._lacking if not self._only_trains(name)]
        if lacking:
            raise UserError(
                f"{self._describe(lacking)}, so predictions would come from random weights: take a "
                "checkpoint that was trained with this config, or the config of this checkpoint."
            )

    def _describe(self, lacking: Sequence[str]) -> str:
        names = listed([self._prefix + name for name in lacking], 3)
        return f"{self._checkpoint} has no weights for {names}, or has them in another shape"

    def _only_trains(self, name: str) -> bool:
        """Whether a name within this module belongs to a part that only training uses."""
        return any(f"{name}.".startswith(f"{part}.") for part in self.training_only)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        self._checkpoint = local_metadata.get("file", "the checkpoint")
        self._prefix = prefix
        own = [*self.named_parameters(), *self.named_buffers()]
        found = {name: state_dict.get(prefix + name) for name, _ in own}
        for name, value in found.items():
            # The mask of a causal tower is infinite on purpose.
            if not isinstance(value, Tensor) or name.endswith("attn_mask"):
                continue
            if not value.isfinite().all():
                raise UserError(f"{self._checkpoint} holds NaN or infinity in {prefix}{name}")
        left_out = tuple(
            f"{name}."
            for name, part in self.named_modules()
            if isinstance(part, FrozenTower)
            and not any(key.startswith(f"{prefix}{name}.module.") for key in state_dict)
        )
        self._lacking = tuple(
            name
            for name, parameter in self.named_parameters()
            if getattr(found[name], "shape", None) != parameter.shape
            and (parameter.requires_grad or not name.startswith(left_out))
        )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def _check_loaded(module: TrainedModule, incompatible: Any) -> None:
    """Parts that only train are not missing; loading in evaluation refuses what others lack."""
    incompatible.missing_keys[:] = [
        key
        for key in incompatible.missing_keys
        if not module._only_trains(key.removeprefix(module._prefix))
    ]
    if not module.training:
        module._refuse_to_predict()
