"""Hides the labels of unseen classes in any mmseg dataset; Pascal VOC as the protocol uses it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, Compose, force_full_init
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.utils import track_iter_progress
from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS

from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import (
    ClassSplit,
    SplitLike,
    ignored_label,
    unlabeled_label,
)

from .data_folders import add_class_names, check_data_folders
from .guarded_pipeline import GuardedPipeline
from .label_rule import LabelRule, background_value
from .samplers import seeded_by

_HIDE_AS = {"inductive": ignored_label, "transductive": unlabeled_label, "supervised": None}


@DATASETS.register_module()
class ZeroShotDataset:
    """Wraps a dataset for zero-shot segmentation.

    In training, pixels of unseen classes lose their label as soon as the pipeline has read it. In
    testing (``test_mode=True`` in the wrapped dataset), labels are kept. In both cases, labels are
    indices 0..K-1 into all classes, seen and unseen, with 255 for ignored pixels and 254 for
    unlabeled ones, or 65535 and 65536 with more than 254 classes. :class:`LabelRule` says which
    values in the files, of 8 or 16 bits, are ignored or background.

    ``metainfo`` is that of the wrapped dataset plus ``seen`` and ``unseen`` (class indices) and
    ``hide_as`` (the label that hides unseen classes; None if nothing is hidden).

    A sample whose index comes with a seed, as ``(index, seed)``, is augmented with that seed,
    independently of what was loaded before; ``takes_seeds`` says so to the sampler.

    Args:
        dataset: The dataset to wrap, as a config or an object. It may be one of mmengine's or
            mmseg's wrappers (``ConcatDataset``, ``RepeatDataset``, ...). An object is not modified.
        split: The class split, in any form that :meth:`ClassSplit.build` accepts. Its names must be
            those of the wrapped dataset; a dataset config without names gets them from the split.
            Config files leave it out: see :func:`mmseg_otseg.engine.resolve`. If its background
            counts, the dataset has the names of the other classes.
        setting: What pixels of unseen classes become in training: "inductive" = ignored,
            "transductive" = unlabeled, "supervised" = they keep their label.
        drop_unseen_images: Whether to leave out training images that contain an unseen class. This
            reads all label files once, when the dataset is initialized.
        pipeline: If given, replaces the pipelines of the wrapped datasets. mmseg's tools can thus
            set ``dataset.pipeline`` in a data loader's config, as they do for unwrapped datasets.
        lazy_init: Whether to postpone initialization until :meth:`full_init`.

    Raises:
        FileNotFoundError: If a data folder or list is missing or empty.
        UserError: If ``dataset`` is not an mmengine dataset, the split is missing or invalid, the
            setting is unknown, the class names differ from the split's, the data has no background
            that could count, or ``drop_unseen_images`` is used in testing, is used with a setting
            other than "inductive", or leaves no image. Loading a sample raises it for files that
            are missing or invalid, and names them.
    """

    takes_seeds = True

    def __init__(
        self,
        dataset: dict | BaseDataset,
        split: SplitLike | None = None,
        setting: str = "inductive",
        drop_unseen_images: bool = False,
        pipeline: Sequence[dict | Callable] | None = None,
        lazy_init: bool = False,
    ) -> None:
        if setting not in _HIDE_AS:
            raise UserError(f"unknown setting {setting!r}; choose one of {', '.join(_HIDE_AS)}.")
        if split is None:
            raise UserError(
                "ZeroShotDataset has no class split. In a run it takes that of model=dict(split="
                "...). Elsewhere give it split=dict(classes=[names], unseen=[names])."
            )
        with _mmseg_scope():
            if isinstance(dataset, dict):
                config = add_class_names(dataset, split)
                check_data_folders(config)
                dataset = DATASETS.build(config)
        leaves = _leaves(dataset)
        for leaf in leaves:  # a wrapper may state other names than the data in it
            name, classes = type(leaf).__name__, leaf.metainfo.get("classes")
            if classes is None:
                raise UserError(
                    f"{name} has no class names; add metainfo=dict(classes=[...]) to its config."
                )
            split = ClassSplit.build(split, classes=classes)
        assert isinstance(split, ClassSplit)
        self.split = split
        self.test_mode = all(leaf.test_mode for leaf in leaves)
        if drop_unseen_images and (self.test_mode or setting != "inductive"):
            raise UserError(
                "drop_unseen_images is for training with setting='inductive', not for "
                f"test_mode={self.test_mode} with setting={setting!r}."
            )
        needed = split.background == "names" or (split.background and self.test_mode)
        if needed and any(background_value(leaf) is None for leaf in leaves):
            raise UserError(
                f"the split has background={split.background!r}, but the label files have no value "
                "for it: set `background` (FolderDataset) or reduce_zero_label=True, which says "
                "that 0 is the background, or remove it from the split."
            )
        self.setting = setting
        self.drop_unseen_images = drop_unseen_images
        hide_as = None if self.test_mode else _HIDE_AS[setting]
        self.hide_as = hide_as and hide_as(split.num_classes)
        with _mmseg_scope():
            self.dataset = _guarded(dataset, split, self.hide_as, pipeline)
        # mmseg's confusion_matrix.py reads these.
        self.METAINFO, self.ignore_index = self.metainfo, self.leaves[0].pipeline.rule.ignored
        self.reduce_zero_label = getattr(self.leaves[0], "reduce_zero_label", False)

        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """A copy of the wrapped dataset's metainfo, plus seen, unseen and hide_as."""
        meta = {**self.dataset.metainfo, **self.split.metainfo, "hide_as": self.hide_as}
        palette, colors = meta.get("palette") or (), len(self.split.foreground)
        if len(palette) == colors < self.split.num_classes:
            meta["palette"] = [*palette, [0, 0, 0]]  # of the background
        return meta

    @property
    def leaves(self) -> list[BaseDataset]:
        """The innermost datasets, which hold the samples, in the order of the samples."""
        return _leaves(self.dataset)

    @property
    def sample_locations(self) -> list[tuple[BaseDataset, int]]:
        """Where the samples are, those that a wrapper repeats once: innermost dataset and index."""
        return [(leaf, index) for leaf in self.leaves for index in range(len(leaf))]

    def full_init(self) -> None:
        """Initialize the wrapped dataset; leave out images with unseen classes if requested."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        if self.drop_unseen_images and self.split.unseen:
            self._drop_unseen_images()
        self._fully_initialized = True

    def _drop_unseen_images(self) -> None:
        samples = self.sample_locations
        total = len(samples)
        print_log(f"Reading {total} label files to leave out images with unseen classes", "current")
        kept: dict[int, list[int]] = {id(leaf): [] for leaf in self.leaves}
        progress = track_iter_progress(samples, file=sys.stderr) if is_main_process() else samples
        for leaf, index in progress:
            label = leaf.pipeline.read_label(leaf.get_data_info(index))
            if not np.isin(label, self.split.unseen).any():
                kept[id(leaf)].append(index)
        left = sum(map(len, kept.values()))
        print_log(
            f"{left} of {total} images contain no unseen class and are kept "
            "(drop_unseen_images=False keeps all)",
            "current",
        )
        if not left:
            raise UserError(
                f"all {total} training images contain one of the unseen classes "
                f"{', '.join(self.split.unseen_names)}; set drop_unseen_images=False."
            )
        _keep_samples(self.dataset, kept)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """The wrapped dataset's entry for a sample: its files and how to read them."""
        return self.dataset.get_data_info(int(idx))

    def get_cat_ids(self, idx: int) -> list[int]:
        """The seen classes in a sample, for a ``ClassBalancedDataset`` around this dataset."""
        return self.dataset.get_cat_ids(idx)

    @force_full_init
    def __len__(self) -> int:
        return len(self.dataset)

    @force_full_init
    def __getitem__(self, idx: int | tuple[int, int]) -> Any:
        """The pipeline's output for the sample at an index, reproducible for (index, seed)."""
        index, seed = idx if isinstance(idx, tuple) else (idx, None)
        with seeded_by(seed):
            return self.dataset[int(index)]


def _mmseg_scope() -> Any:
    """Look components up in mmseg's registries, unless a Runner or the caller chose a scope."""
    chosen = DefaultScope.get_current_instance() is not None
    return DefaultScope.overwrite_default_scope(None if chosen else "mmseg")


def _children(dataset: Any) -> list:
    """The datasets inside a wrapper; empty for a dataset that is not a wrapper."""
    if isinstance(dataset, BaseDataset):
        return []
    children = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    if isinstance(dataset, ZeroShotDataset) or children == [None]:
        raise UserError(
            "ZeroShotDataset wraps mmengine datasets (BaseDataset) and wrappers of them, not "
            f"{type(dataset).__name__}."
        )
    return list(children)


def _leaves(dataset: Any) -> list[BaseDataset]:
    """The datasets that hold the samples, in the order of the samples."""
    children = _children(dataset)
    return [leaf for child in children for leaf in _leaves(child)] if children else [dataset]


def _guarded(dataset: Any, split: ClassSplit, hide_as: int | None, pipeline: Any) -> Any:
    """A shallow copy of a dataset whose pipelines apply the label rule."""
    children = [_guarded(child, split, hide_as, pipeline) for child in _children(dataset)]
    dataset = copy.copy(dataset)
    if not children:
        steps = dataset.pipeline if pipeline is None else Compose(pipeline)
        rule = LabelRule(split, dataset, hide_as)
        dataset.pipeline = GuardedPipeline(steps.transforms, rule)
    elif hasattr(dataset, "datasets"):
        dataset.datasets = children
    else:
        dataset.dataset = children[0]
    return dataset


def _keep_samples(dataset: Any, kept: dict[int, list[int]]) -> None:
    """Keep the listed samples of every leaf, and update the wrappers' lengths."""
    children = _children(dataset)
    if not children:
        dataset.get_subset_(kept[id(dataset)])
        return
    for child in children:
        _keep_samples(child, kept)
    dataset._fully_initialized = False
    dataset.full_init()
    if hasattr(dataset, "num_samples"):  # mmseg's MultiImageMixDataset counts at construction
        dataset.num_samples = len(dataset.dataset)


@DATASETS.register_module()
class PascalVOC20Dataset(PascalVOCDataset):
    """Pascal VOC 2012 with 20 classes; background pixels are ignored (255).

    In the label files, 0 is the background, 1..20 are the classes and 255 marks object outlines.

    Args:
        ann_file: List of the image names, as in ``PascalVOCDataset``.
        reduce_zero_label: Whether 0 is the background in the files. Set it to False for files that
            already hold 0..19 and 255.
        **kwargs: As in ``PascalVOCDataset``.
    """

    METAINFO = {
        "classes": PascalVOCDataset.METAINFO["classes"][1:],
        "palette": PascalVOCDataset.METAINFO["palette"][1:],
    }

    def __init__(self, ann_file: str, reduce_zero_label: bool = True, **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, reduce_zero_label=reduce_zero_label, **kwargs)
