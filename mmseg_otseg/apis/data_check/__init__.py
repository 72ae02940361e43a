"""Checks of a user's data before training."""

from .check import DataReport, check_data
from .finding import Finding

__all__ = ["DataReport", "Finding", "check_data"]
