"""The seen-class bias of a head, from its config or calibrated for a checkpoint's weights."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from mmseg_otseg.errors import UserError

DEFAULT_SEEN_BIAS = 0.1
"""The papers' value for the inductive setting, in probabilities."""


def state_key(predict_from: str) -> str:
    """Key of a calibrated bias in a head's state dict; each kind of prediction has its own.

    Args:
        predict_from: Which maps predict, see :class:`~mmseg_otseg.models.MPSAHead`.
    """
    return f"calibrated_seen_bias.{predict_from}"


class SeenBias:
    """The bias of a head: its config's, or else its checkpoint's, or else 0.1.

    Args:
        configured: The bias in the config, a probability; None leaves it to the checkpoint.

    Attributes:
        value: The bias in use, a probability.
        calibrated: Whether it was calibrated for the loaded weights.

    Raises:
        UserError: If the bias is not a number between -1 and 1.
    """

    def __init__(self, configured: float | None) -> None:
        if configured is not None and not _is_bias(configured):
            raise UserError(
                "seen_bias is subtracted from probabilities, so it must be a number between -1 and "
                f"1, or None for the checkpoint's own; got {configured!r}"
            )
        self.configured = configured
        self.value = DEFAULT_SEEN_BIAS if configured is None else configured
        self.calibrated = False

    def load(self, state_dict: dict[str, Any], prefix: str, predict_from: str) -> None:
        """Take the calibrated biases out of a state dict, and use the one for this prediction.

        Args:
            state_dict: Of a checkpoint.
            prefix: Of the head's names in it.
            predict_from: Which maps predict.
        """
        wanted, found = prefix + state_key(predict_from), {}
        for key in [key for key in state_dict if key.startswith(prefix + state_key(""))]:
            found[key] = state_dict.pop(key)
        self.reset()
        if not found:
            return
        if wanted not in found:
            kinds = ", ".join(key.rsplit(".", 1)[1] for key in found)
            print_log(
                f"The checkpoint's seen-class bias was calibrated for predict_from={kinds}, not "
                f"for {predict_from}: {self.value:g} is used.",
                "current",
            )
            return
        calibrated = _plain(found[wanted])
        if self.configured is not None:
            print_log(
                f"The config's seen-class bias {self.value:g} is used, not {calibrated:g}, which "
                "the checkpoint was calibrated to.",
                "current",
            )
            return
        self.value, self.calibrated = calibrated, True
        print_log(f"Seen-class bias {calibrated:g}, calibrated, from the checkpoint.", "current")

    def reset(self) -> None:
        """Forget a calibrated bias, as the weights it belongs to are about to change."""
        self.value = DEFAULT_SEEN_BIAS if self.configured is None else self.configured
        self.calibrated = False

    def end_calibration(self) -> None:
        """Before training: forget a calibrated bias, and say so."""
        if self.calibrated:
            self.reset()
            print_log(
                f"Training changes what the seen-class bias was calibrated for: {self.value:g} is "
                "used from now on.",
                "current",
            )


def _is_bias(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1 <= value <= 1


def _plain(value: Any) -> float:
    """A bias from a file.

    Raises:
        UserError: If it is not a number between -1 and 1.
    """
    if isinstance(value, Tensor) and value.numel() == 1 and _is_bias(value.item()):
        return float(value)
    raise UserError(
        "the checkpoint's calibrated seen-class bias is not a number between -1 and 1; calibrate "
        "it again with tools/analysis/calibrate_seen_bias.py --write"
    )
