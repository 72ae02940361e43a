"""Reports which folders or files of a dataset are not where its config says they are."""

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

from .folder_dataset import FolderDataset, where

# mmseg's converters that write files of a dataset, and a part of these files' last two folders.
_CONVERTERS = (
    (COCOStuffDataset, "annotations", "coco_stuff164k.py"),
    (PascalContextDataset, "context", "pascal_context.py"),
    (PascalContextDataset59, "context", "pascal_context.py"),
    (PascalVOCDataset, "aug", "voc_aug.py"),
)


def check_config(config: dict) -> None:
    """Check that the folders and lists of a dataset exist and are not empty, before it is built.

    mmseg's own datasets would fail with a bare ``AssertionError`` or an error about empty arrays.

    Args:
        config: Config of any registered dataset, with ``type``. Datasets that find their samples
            differently from mmseg's ``BaseSegDataset``, or not in local files, are not checked.

    Raises:
        FileNotFoundError: If something is missing; the message names the folder or file, what
            should be in it, and the config key.
    """
    for leaf in _leaf_configs(config):
        cls = _class_of(leaf)
        if cls is FolderDataset:
            options = {key: leaf[key] for key in ("data_root", "subset") if key in leaf}
            FolderDataset(**options, lazy_init=True).find_pairs()
        elif getattr(cls, "load_data_list", None) is BaseSegDataset.load_data_list:
            problem = _problem(_without_files(cls, leaf), cls)
            if problem:
                raise FileNotFoundError(problem)


def with_names(config: dict, split: SplitLike) -> dict:
    """Copy a dataset's config and add a split's classes to each part that has none of its own."""
    if isinstance(split, Mapping) and "classes" not in split:
        return config
    built, config = ClassSplit.build(split), copy.deepcopy(config)
    classes = {"classes": list(built.classes), "unseen": list(built.unseen)}
    for leaf in _leaf_configs(config):
        cls = _class_of(leaf)
        plain = inspect.isclass(cls) and issubclass(cls, BaseSegDataset)
        if plain and "classes" not in cls.METAINFO:
            leaf["metainfo"] = {**classes, **(leaf.get("metainfo") or {})}
    return config


def _class_of(config: dict) -> Any:
    """The class of the dataset in a config; None if the name is not registered."""
    kind = config.get("type")
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def _leaf_configs(config: dict) -> Iterator[dict]:
    """The configs of the innermost datasets, which wrap no other."""
    wrapped = config.get("datasets") or [config.get("dataset", config)]
    for inner in wrapped:
        if inner is config:
            yield config
        elif isinstance(inner, dict):
            yield from _leaf_configs(inner)


def _without_files(cls: Any, config: dict) -> BaseSegDataset:
    """A dataset with the paths and suffixes of a config, which has not read any file."""
    options = {name: value for name, value in config.items() if name not in ("type", "_scope_")}
    try:
        return cls(**{**options, "pipeline": [], "lazy_init": True})
    except Exception:  # some read files even then: use a BaseSegDataset with the same paths
        pass
    defaults = inspect.signature(cls.__init__).parameters
    known = inspect.signature(BaseSegDataset.__init__).parameters
    given = {
        name: config.get(name, defaults[name].default if name in defaults else known[name].default)
        for name in ("ann_file", "data_root", "data_prefix", "img_suffix", "seg_map_suffix")
    }
    given = {name: value for name, value in given.items() if value is not inspect.Parameter.empty}
    return BaseSegDataset(lazy_init=True, backend_args=config.get("backend_args"), **given)


def _problem(dataset: BaseSegDataset, cls: type) -> str | None:
    """What is missing of a dataset's files, if anything.

    Args:
        dataset: A dataset.
        cls: The class that a config names, for the message.
    """
    if dataset.backend_args:
        return None
    root, name = dataset.data_root, cls.__name__
    if root and not os.path.isdir(root):
        return (
            f"the data folder {where(root)} of {name} does not exist. Put the data there, or set "
            f"`data_root` in the config of {name} to where it is."
        )
    folders = (
        ("img_path", "images", dataset.img_suffix),
        ("seg_map_path", "label files", dataset.seg_map_suffix),
    )
    for key, what, suffix in folders:
        folder = dataset.data_prefix.get(key)
        if not folder or (key == "seg_map_path" and folder == os.path.join(root or "", "")):
            continue  # no label folder given: a dataset without labels
        convert = _converter(cls, folder)
        change = f"set `data_root` or `data_prefix=dict({key}=...)` in the config of {name}"
        if not os.path.isdir(folder):
            return (
                f"the folder {where(folder)}, where {name} looks for {what}, does not exist. "
                f"{convert or 'Put them there'}, or {change}."
            )
        found = list_dir_or_file(folder, list_dir=False, suffix=suffix, recursive=True)
        if next(iter(found), None) is None:
            problem = (
                f"the folder {where(folder)} holds no {what}: {name} looked for files that end in "
                f"'{suffix}'."
            )
            if convert:
                return f"{problem} {convert}."
            suffixes = "correct `img_suffix` and `seg_map_suffix`"
            return f"{problem} Put them there, {change}, or {suffixes}."
    return _problem_of_list(dataset.ann_file, cls)


def _problem_of_list(path: str, cls: type) -> str | None:
    if not path or os.path.isdir(path):
        return None
    what, change = (
        f"the list {where(path)}, from which {cls.__name__} reads the image names,",
        (f"set `ann_file` in the config of {cls.__name__}"),
    )
    if not os.path.isfile(path):
        return f"{what} does not exist. {_converter(cls, path) or 'Put it there'}, or {change}."
    try:
        with open(path, encoding="utf-8") as lines:
            empty = not any(line.strip() for line in lines)
    except UnicodeDecodeError:
        return f"{what} is not text."
    return f"{what} is empty. Add one name per line, or {change}." if empty else None


def _converter(cls: type, path: str) -> str:
    """Which of mmseg's converters writes the files at a path of a dataset; empty for none."""
    ending = "/".join(os.path.normpath(path).split(os.sep)[-2:]).casefold()
    for dataset, part, script in _CONVERTERS:
        if issubclass(cls, dataset) and part in ending:
            return f"Create them with mmseg's tools/dataset_converters/{script}"
    return ""
