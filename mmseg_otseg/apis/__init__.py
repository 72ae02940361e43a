"""What is used from outside a training run: conversion of checkpoints."""

from .authors_checkpoint import Conversion, convert_authors_checkpoint, convert_authors_state_dict

__all__ = ["Conversion", "convert_authors_checkpoint", "convert_authors_state_dict"]
