"""What is used from outside a training run: conversion of checkpoints."""

from .authors_checkpoint import convert_authors_state_dict

__all__ = ["convert_authors_state_dict"]
