"""The configs of nested datasets, and which of their folders or files are missing."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.fileio import list_dir_or_file
from mmseg.datasets import (
    BaseSegDataset,
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)
from mmseg.registry import DATASETS

from mmseg_otseg.structures import ClassSplit, SplitLike

from .folder_dataset import FolderDataset, full_path

# mmseg's converters that write files of a dataset, and a part of these files' last two folders.
CONVERTERS = (
    (COCOStuffDataset, "annotations", "coco_stuff164k.py"),
    (PascalContextDataset, "context", "pascal_context.py"),
    (PascalContextDataset59, "context", "pascal_context.py"),
    (PascalVOCDataset, "aug", "voc_aug.py"),
)


def nested_datasets(dataset: Mapping[str, Any]) -> Iterator[Any]:
    """The config of a dataset, and those of the datasets that it wraps, at any depth.

    Args:
        dataset: Config with ``type``.
    """
    yield dataset
    for inner in (dataset.get("dataset"), *(dataset.get("datasets") or ())):
        if isinstance(inner, Mapping):
            yield from nested_datasets(inner)


def check_data_folders(config: dict) -> None:
    """Check that the folders and lists of a dataset exist and are not empty, before it is built.

    mmseg's own datasets would fail with a bare ``AssertionError`` or an error about empty arrays.

    Args:
        config: Config of any registered dataset, with ``type``. Datasets that find their samples
            differently from mmseg's ``BaseSegDataset``, or not in local files, are not checked.

    Raises:
        FileNotFoundError: If something is missing; the message names the folder or file, what
            should be in it, and the config key.
    """
    for leaf, cls in _leaves(config):
        if cls is FolderDataset:
            options = {key: leaf[key] for key in ("data_root", "subset") if key in leaf}
            FolderDataset(**options, lazy_init=True).find_pairs()
        elif getattr(cls, "load_data_list", None) is BaseSegDataset.load_data_list:
            dataset = _without_files(cls, leaf)
            if not dataset.backend_args:  # local files
                _check_files(dataset, cls)


def add_class_names(config: dict, split: SplitLike) -> dict:
    """Copy a dataset's config and add a split's classes to each part that has none of its own."""
    if isinstance(split, Mapping) and "classes" not in split:
        return config
    built, config = ClassSplit.build(split), copy.deepcopy(config)
    for leaf, cls in _leaves(config):
        if "classes" not in getattr(cls, "METAINFO", {"classes": ()}):
            leaf["metainfo"] = {**built.data_metainfo, **(leaf.get("metainfo") or {})}
    return config


def _leaves(config: dict) -> Iterator[tuple[dict, Any]]:
    """The configs that wrap no other dataset, with their classes; None for an unknown name."""
    for leaf in nested_datasets(config):
        if "dataset" not in leaf and "datasets" not in leaf:
            kind = leaf.get("type")
            yield leaf, DATASETS.get(kind) if isinstance(kind, str) else kind


def _without_files(cls: Any, config: dict) -> BaseSegDataset:
    """A dataset with the paths and suffixes of a config, which has not read any file."""
    options = {name: value for name, value in config.items() if name not in ("type", "_scope_")}
    try:
        return cls(**{**options, "pipeline": [], "lazy_init": True})
    except Exception:  # mmseg's VOC and Context look for their files: take their suffixes alone
        own = inspect.signature(cls.__init__).parameters
        suffixes = {key: own[key].default for key in ("img_suffix", "seg_map_suffix") if key in own}
        keys = ("ann_file", "data_root", "data_prefix", "backend_args", *suffixes)
        given = {key: options[key] for key in keys if key in options}
        return BaseSegDataset(lazy_init=True, **{**suffixes, **given})


def _check_files(dataset: BaseSegDataset, cls: type) -> None:
    """Check the folders, and the list of image names, of a dataset of a class."""
    name = cls.__name__
    for key, what, option in (
        ("img_path", "images", "img_suffix"),
        ("seg_map_path", "label files", "seg_map_suffix"),
    ):
        folder, suffix = dataset.data_prefix.get(key), getattr(dataset, option)
        if not folder or (what != "images" and folder == os.path.join(dataset.data_root or "", "")):
            continue  # no folder given: a dataset without labels
        convert = _converter(cls, folder)
        problem, change = "does not exist", f"`data_root` or `data_prefix=dict({key}=...)`"
        if os.path.isdir(folder):
            problem = f"holds no files that end in '{suffix}'"
            change += "" if convert else f" or `{option}`"
            if any(list_dir_or_file(folder, list_dir=False, suffix=suffix, recursive=True)):
                continue
        raise FileNotFoundError(
            f"the folder {full_path(folder)}, where {name} looks for {what}, {problem}. "
            f"{convert or 'Put them there'}, or set {change} in the config of {name}."
        )
    path = dataset.ann_file
    if path and not os.path.isdir(path) and not (os.path.isfile(path) and os.path.getsize(path)):
        raise FileNotFoundError(
            f"the list {full_path(path)}, from which {name} reads the image names, does not exist "
            f"or is empty. {_converter(cls, path) or 'Put one name on each line'}, or set "
            f"`ann_file` in the config of {name}."
        )


def _converter(cls: type, path: str) -> str:
    """Which of mmseg's converters writes the files at a path of a dataset; empty for none."""
    ending = "/".join(os.path.normpath(path).split(os.sep)[-2:]).casefold()
    for dataset, part, script in CONVERTERS:
        if issubclass(cls, dataset) and part in ending:
            return f"Run mmseg's tools/dataset_converters/{script}"
    return ""
