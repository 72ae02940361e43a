"""Checks of a user's data and CLIP before training."""

from mmseg_otseg.checks.data import DataReport, check_data
from mmseg_otseg.checks.labels import Finding

__all__ = ["DataReport", "Finding", "check_data"]
