"""Losses."""

from .focal_dice_loss import FocalDiceLoss

__all__ = ["FocalDiceLoss"]
