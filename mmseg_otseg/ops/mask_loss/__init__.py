"""Focal and dice sums of class maps against labels, and their gradients in closed form."""

from .focal_dice import FocalDiceSums, focal_dice_sums

__all__ = ["FocalDiceSums", "focal_dice_sums"]
