"""Pipelines that hide unseen classes as soon as labels are read, and name files in errors."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import Compose, LoadAnnotations, LoadImageFromFile
from mmengine.dataset import Compose as DatasetCompose

from mmseg_otseg.imaging import check_image_file

from .label_rule import LabelRule, SampleError

_LABEL = "gt_seg_map"
WHOLE_LABEL = "whole_seg_map"
# The attributes in which mmcv's wrapping transforms (KeyMapper, RandomChoice, RandomApply,
# TestTimeAug, ...) keep the transforms they wrap.
_NESTED = ("transforms", "subroutines")


class MissingFileError(SampleError, FileNotFoundError):
    """A file of a sample does not exist."""


class _Guard:
    """State shared by nested pipelines.

    Attributes:
        rule: Checks label maps and hides the unseen classes.
        applied: Number of label maps to which the rule was applied.
        keep_whole: Whether to also keep the original label map, as ``whole_seg_map``.
    """

    def __init__(self, rule: LabelRule) -> None:
        self.rule = rule
        self.applied = 0
        self.keep_whole = False

    def apply(self, results: dict, image: str | None, label: str | None) -> None:
        """Apply the rule to the label map that a transform has just added to the results."""
        self.applied += 1
        whole = _at_size_of_image(results, image, label)
        results[_LABEL] = self.rule(whole, label or image or "of this sample")
        if self.keep_whole:
            results[WHOLE_LABEL] = whole
            results.setdefault("seg_fields", []).append(WHOLE_LABEL)


class GuardedPipeline(Compose):
    """A pipeline that applies a rule to the label map as soon as it appears.

    Whichever transform adds ``gt_seg_map`` to the results, at any depth, later transforms see only
    the output of the rule. Hidden classes therefore cannot influence where an image is cropped.
    Transforms that wrap others are copied; all others are used directly.

    Args:
        transforms: Built transforms; each takes and returns the results dict.
        rule: Checks label maps and hides the unseen classes.
    """

    def __init__(self, transforms: Sequence[Callable], rule: LabelRule) -> None:
        self._setup(transforms, _Guard(rule))

    @classmethod
    def _inside(cls, transforms: Sequence[Callable], guard: _Guard) -> GuardedPipeline:
        """A nested pipeline that shares the guard of the outer one."""
        pipeline = cls.__new__(cls)
        pipeline._setup(transforms, guard)
        return pipeline

    def _setup(self, transforms: Sequence[Callable], guard: _Guard) -> None:
        super().__init__([_guarded(transform, guard) for transform in transforms])
        self._guard = guard

    def transform(self, results: dict) -> dict | None:
        """Run the transforms on the results dict of one sample; None if one of them returns None.

        Raises:
            MissingFileError: If an image or label file does not exist.
            SampleError: If a file cannot be decoded, the rule refuses a label map, or another
                transform fails.
        """
        return self._run_all(self.transforms, results)

    def _run_all(self, steps: Sequence[Callable], results: dict) -> dict | None:
        image, label = results.get("img_path"), results.get("seg_map_path")
        for step in steps:
            labeled, applied = _LABEL in results, self._guard.applied
            output = _run(step, results, image, label)
            if output is None:
                return None
            appeared = not labeled and isinstance(output.get(_LABEL), np.ndarray)
            if appeared and self._guard.applied == applied:  # not yet by a nested pipeline
                self._guard.apply(output, image, label)
            results = output
        return results

    def run_whole(self, info: dict, keep: Callable[[Callable], bool]) -> dict:
        """Run some of the transforms, and also keep the label map as it was before hiding classes.

        Args:
            info: The dataset's entry for the sample, from ``get_data_info``.
            keep: Returns whether to run a given transform.

        Returns:
            The results. If a transform reads labels, they include ``whole_seg_map`` (H, W): the
            original label map, transformed in the same way as ``gt_seg_map``.

        Raises:
            MissingFileError, SampleError: As in :meth:`transform`.
        """
        self._guard.keep_whole = True
        try:
            results = self._run_all([step for step in self.transforms if keep(step)], info)
        finally:
            self._guard.keep_whole = False
        if results is None:
            raise SampleError(f"the pipeline returned no result for image {info.get('img_path')}.")
        return results

    def read_label(self, info: dict) -> np.ndarray:
        """Read a label map with the pipeline's own loader, without hiding or transforming anything.

        Args:
            info: The dataset's entry for the sample, from ``get_data_info``.

        Returns:
            Class indices, (H, W), 255 = ignored.

        Raises:
            MissingFileError, SampleError: As in :meth:`transform`, and if no transform of the
                pipeline reads labels.
        """
        steps = list(_single_steps(self.transforms))
        image, label = info.get("img_path"), info.get("seg_map_path")
        self._guard.keep_whole = True  # nested pipelines hide classes
        try:
            # mmseg's loaders need only the label file; others may depend on earlier transforms.
            for step in [step for step in steps if isinstance(step, LoadAnnotations)][:1] or steps:
                info = _run(step, info, image, label) or {}
                if isinstance(info.get(_LABEL), np.ndarray):
                    return info.get(WHOLE_LABEL, info[_LABEL])
        finally:
            self._guard.keep_whole = False
        raise SampleError(
            f"no transform of the pipeline reads the label of {image}; add "
            "dict(type='LoadAnnotations') to it."
        )


def _single_steps(transforms: Sequence[Callable]) -> Iterator[Callable]:
    """The transforms in order, including those of nested pipelines."""
    for transform in transforms:
        if isinstance(transform, (Compose, DatasetCompose)):
            yield from _single_steps(transform.transforms)
        else:
            yield transform


def _inner_pipelines(transform: Callable) -> Iterator[tuple[str, list]]:
    """The attributes of a transform that hold pipelines, with their pipelines as lists."""
    for name in _NESTED:
        inner = getattr(transform, name, None)
        items = inner if isinstance(inner, list) else [inner]
        if any(isinstance(item, (Compose, DatasetCompose)) for item in items):
            yield name, items


def _guarded(transform: Callable, guard: _Guard) -> Callable:
    """Replace all pipelines in a transform with guarded ones."""
    if isinstance(transform, (Compose, DatasetCompose)):
        return GuardedPipeline._inside(transform.transforms, guard)
    guarded: dict[str, Any] = {}
    for name, items in _inner_pipelines(transform):
        pipelines = [_guarded(item, guard) for item in items]
        guarded[name] = pipelines if isinstance(getattr(transform, name), list) else pipelines[0]
    if guarded:
        transform = copy.copy(transform)
        vars(transform).update(guarded)
    return transform


def _run(step: Callable, results: dict, image: str | None, label: str | None) -> dict | None:
    """Run one transform; if it fails, name the files in the error."""
    reads = {LoadImageFromFile: ("image", image), LoadAnnotations: ("label file", label)}
    try:
        for loader, (_, path) in reads.items():
            if isinstance(step, loader) and path and os.path.exists(path):  # not s3:// or missing
                check_image_file(path)
        return step(results)
    except SampleError:  # from a nested pipeline; it already names the files
        raise
    except Exception as error:
        name, reason = type(step).__name__, " ".join(str(error).split())
        for loader, (what, path) in reads.items():
            if not isinstance(step, loader):
                continue
            if isinstance(error, FileNotFoundError):
                raise MissingFileError(
                    f"{what} {path} does not exist, although the dataset lists it. Restore it, or "
                    "correct `ann_file`, `data_prefix` or the file suffixes of the dataset."
                ) from error
            raise SampleError(
                f"{what} {path} cannot be decoded ({name}: {reason}). Replace the file, or "
                "remove it from the dataset's list."
            ) from error
        raise SampleError(
            f"{name} failed on image {image} with label file {label}: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _at_size_of_image(results: dict, image: str | None, label: str | None) -> np.ndarray:
    """The label map (H, W) that was just read, after checking that it has the image's size.

    Raises:
        SampleError: If it has another size, in which case labels would not match the image.
    """
    read, size = results[_LABEL], tuple(results.get("ori_shape", ()))[:2]
    if not size or read.ndim > 2:
        return read
    if read.ndim < 2 and read.size == size[0] * size[1]:
        return read.reshape(size)  # mmseg's loader drops axes of length 1
    if read.shape != size:
        raise SampleError(
            f"image {image} has {size[0]} x {size[1]} pixels (height x width), but its label "
            f"file {label} {' x '.join(map(str, read.shape))}. Give both the same size."
        )
    return read
