"""Pipelines that hide unseen classes where labels are read, and name the file when one fails."""

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
# Where mmcv's transforms of transforms (KeyMapper, RandomChoice, RandomApply, TestTimeAug, ...)
# keep what they wrap.
_NESTED = ("transforms", "subroutines")


class MissingFileError(SampleError, FileNotFoundError):
    """A file of a sample does not exist."""


class _Guard:
    """What the pipelines inside one another share.

    Attributes:
        rule: Checks label maps and hides the unseen classes.
        applied: How many label maps it was applied to.
        keep_whole: Whether to keep the label map as it was read too, as ``whole_seg_map``.
    """

    def __init__(self, rule: LabelRule) -> None:
        self.rule = rule
        self.applied = 0
        self.keep_whole = False

    def apply(self, results: dict, image: str | None, label: str | None) -> None:
        """Apply the rule to the label map that has just appeared in the results of a sample."""
        self.applied += 1
        whole = _at_size_of_image(results, image, label)
        results[_LABEL] = self.rule(whole, label or image or "of this sample")
        if self.keep_whole:
            results[WHOLE_LABEL] = whole
            results.setdefault("seg_fields", []).append(WHOLE_LABEL)


class GuardedPipeline(Compose):
    """A pipeline that applies a rule to the label map as soon as it appears.

    Whichever transform puts ``gt_seg_map`` into the results, at any depth, the transforms after it
    see only what the rule lets through: hidden classes cannot influence where an image is cropped.
    Transforms are used as they are; those that wrap others are copied.

    Args:
        transforms: Built transforms; each takes and returns the results dict.
        rule: Checks label maps and hides the unseen classes.
    """

    def __init__(self, transforms: Sequence[Callable], rule: LabelRule) -> None:
        self._setup(transforms, _Guard(rule))

    @classmethod
    def _inside(cls, transforms: Sequence[Callable], guard: _Guard) -> GuardedPipeline:
        """A pipeline inside another one, which shares its guard."""
        pipeline = cls.__new__(cls)
        pipeline._setup(transforms, guard)
        return pipeline

    def _setup(self, transforms: Sequence[Callable], guard: _Guard) -> None:
        super().__init__([_guarded(transform, guard) for transform in transforms])
        self._guard = guard

    def transform(self, results: dict) -> dict | None:
        """Run the transforms on the results dict of one sample; None when one of them gives up.

        Raises:
            MissingFileError: For an image or label file that is not there.
            SampleError: For one that cannot be decoded, for a label map that the rule refuses, and
                when another transform fails.
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
            if appeared and self._guard.applied == applied:  # else a pipeline inside the step did
                self._guard.apply(output, image, label)
            results = output
        return results

    def run_whole(self, info: dict, keep: Callable[[Callable], bool]) -> dict:
        """Run some of the transforms and keep the label map as it was read beside the hidden one.

        Args:
            info: What the dataset knows of the sample, from ``get_data_info``.
            keep: Says of each transform whether to run it.

        Returns:
            The results, with ``whole_seg_map`` (H, W), which went through the transforms as
            ``gt_seg_map`` did; without it if no transform reads labels.

        Raises:
            MissingFileError, SampleError: As when the pipeline runs.
        """
        self._guard.keep_whole = True
        try:
            results = self._run_all([step for step in self.transforms if keep(step)], info)
        finally:
            self._guard.keep_whole = False
        if results is None:
            raise SampleError(f"the pipeline gave up on image {info.get('img_path')}.")
        return results

    def read_label(self, info: dict) -> np.ndarray:
        """Read a label map with the pipeline's own loader, nothing hidden and nothing else run.

        Args:
            info: What the dataset knows of the sample, from ``get_data_info``.

        Returns:
            Class indices, (H, W).

        Raises:
            MissingFileError, SampleError: As when the pipeline runs, and when no transform of it
                reads labels.
        """
        steps = list(_single_steps(self.transforms))
        image, label = info.get("img_path"), info.get("seg_map_path")
        self._guard.keep_whole = True  # a pipeline inside a step hides classes
        try:
            # mmseg's loaders need only the label file; others may need what comes before them.
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
    """The transforms in order, those of a pipeline in a pipeline too."""
    for transform in transforms:
        if isinstance(transform, (Compose, DatasetCompose)):
            yield from _single_steps(transform.transforms)
        else:
            yield transform


def _inner_pipelines(transform: Callable) -> Iterator[tuple[str, list]]:
    """The attributes of a transform that hold pipelines, and what they hold, as lists."""
    for name in _NESTED:
        inner = getattr(transform, name, None)
        items = inner if isinstance(inner, list) else [inner]
        if any(isinstance(item, (Compose, DatasetCompose)) for item in items):
            yield name, items


def _guarded(transform: Callable, guard: _Guard) -> Callable:
    """Put guarded pipelines in the place of all pipelines in a transform."""
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
    """Run one transform; when it fails, say on which files."""
    reads = {LoadImageFromFile: ("image", image), LoadAnnotations: ("label file", label)}
    try:
        for loader, (_, path) in reads.items():
            if isinstance(step, loader) and path and os.path.exists(path):  # else s3:// or missing
                check_image_file(path)
        return step(results)
    except SampleError:  # from a pipeline inside the step; it names the files already
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
                f"{what} {path} cannot be decoded ({name}: {reason}). Replace the file, or take it "
                "out of the dataset's list."
            ) from error
        raise SampleError(
            f"{name} failed on image {image} with label file {label}: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _at_size_of_image(results: dict, image: str | None, label: str | None) -> np.ndarray:
    """The label map (H, W) that was just read, if it has the size of the image.

    Raises:
        SampleError: If it has another size; resizing would stretch one over the other.
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
