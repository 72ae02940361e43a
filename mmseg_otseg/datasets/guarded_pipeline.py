"""Pipelines that hide unseen classes where labels are read, and name the file when one fails."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import Compose, LoadAnnotations, LoadImageFromFile
from mmengine.dataset import Compose as DatasetCompose

from mmseg_otseg.imaging import check_image_file

from .label_rule import LabelFound, LabelRule, SampleError

_LABEL = "gt_seg_map"
WHOLE_LABEL = "whole_seg_map"
# Where mmcv's transforms of transforms (KeyMapper, RandomChoice, RandomApply, TestTimeAug, ...)
# keep what they wrap.
_NESTED = ("transforms", "subroutines")


class MissingFileError(SampleError, FileNotFoundError):
    """A file of a sample does not exist."""


class GuardedPipeline(Compose):
    """A pipeline that applies a rule to the label map directly after it appeared.

    Whichever transform puts ``gt_seg_map`` into the results, at any depth, the following ones see
    only what the rule lets through: a crop chosen by the classes in it cannot be chosen by hidden
    ones. Transforms are used as they are; those that wrap others are copied.

    Args:
        transforms: Built transforms; each takes and returns the results dict.
        rule: Checks label maps and hides the unseen classes.
    """

    def __init__(self, transforms: Sequence[Callable], rule: LabelRule) -> None:
        super().__init__([_guard(transform, rule) for transform in transforms])
        self.rule = rule

    def transform(self, results: dict) -> dict | None:
        """Run the transforms on the results dict of one sample; None when one of them gives up.

        Raises:
            MissingFileError: For a picture or label file that is not there.
            SampleError: For one that cannot be decoded, for a label map that the rule refuses, and
                when another transform fails.
        """
        return self._run_all(self.transforms, results)

    def _run_all(self, steps: Sequence[Callable], results: dict) -> dict | None:
        picture, label = results.get("img_path"), results.get("seg_map_path")
        for step in steps:
            labelled, calls = _LABEL in results, self.rule.calls
            output = _run(step, results, picture, label)
            if output is None:
                return None
            appeared = not labelled and isinstance(output.get(_LABEL), np.ndarray)
            if appeared and self.rule.calls == calls:  # else a pipeline inside the step applied it
                whole = output[_LABEL] = _at_size_of_image(output, picture, label)
                output[_LABEL] = self.rule(whole, label or picture or "of this sample")
                if self.rule.keep_whole:
                    output[WHOLE_LABEL] = whole
                    output.setdefault("seg_fields", []).append(WHOLE_LABEL)
            results = output
        return results

    def run_whole(self, info: dict, keep: Callable[[Callable], bool]) -> dict:
        """Run some of the transforms, with the label map as it was read beside the one of the rule.

        Args:
            info: What the data set knows of the sample, from ``get_data_info``.
            keep: Says of each transform whether it shall run.

        Returns:
            The results, with ``whole_seg_map`` (H, W), which went through the transforms as
            ``gt_seg_map`` did; without it if no transform reads labels.

        Raises:
            MissingFileError, SampleError: As when the pipeline runs.
        """
        self.rule.keep_whole = True
        try:
            results = self._run_all([step for step in self.transforms if keep(step)], info)
        finally:
            self.rule.keep_whole = False
        if results is None:
            raise SampleError(f"the pipeline gave up on picture {info.get('img_path')}.")
        return results

    def read_label(self, info: dict) -> np.ndarray:
        """Read a label map by the pipeline's own loader, with nothing hidden.

        Args:
            info: What the data set knows of the sample, from ``get_data_info``.

        Returns:
            Class indices, (H, W).

        Raises:
            MissingFileError, SampleError: As when the pipeline runs, and when no transform of it
                reads labels.
        """
        # mmseg's loaders need nothing but the label file; others may need what comes before them.
        loaders = [step for step in self.transforms if isinstance(step, LoadAnnotations)]
        steps = loaders[:1] or self.transforms
        self.rule.stop_at_label = True
        try:
            self._run_all(steps, info)
        except LabelFound as found:
            return found.label
        finally:
            self.rule.stop_at_label = False
        raise SampleError(
            f"no transform of the pipeline reads the label of {info.get('img_path')}; add "
            "dict(type='LoadAnnotations') to it."
        )


def _guard(transform: Callable, rule: LabelRule) -> Callable:
    """Put guarded pipelines in the place of all pipelines in a transform."""
    if isinstance(transform, (Compose, DatasetCompose)):
        return GuardedPipeline(transform.transforms, rule)
    guarded: dict[str, Any] = {}
    for name in _NESTED:
        inner = getattr(transform, name, None)
        if isinstance(inner, (Compose, DatasetCompose)):
            guarded[name] = _guard(inner, rule)
        elif isinstance(inner, list) and any(
            isinstance(x, (Compose, DatasetCompose)) for x in inner
        ):
            guarded[name] = [_guard(item, rule) for item in inner]
    if guarded:
        transform = copy.copy(transform)
        vars(transform).update(guarded)
    return transform


def _run(step: Callable, results: dict, picture: str | None, label: str | None) -> dict | None:
    """Run one transform; when it fails, say on which files."""
    reads = {LoadImageFromFile: ("picture", picture), LoadAnnotations: ("label file", label)}
    try:
        for loader, (_, path) in reads.items():
            if isinstance(step, loader) and path and os.path.exists(path):  # else s3:// or missing
                check_image_file(path)
        return step(results)
    except (SampleError, LabelFound):  # from a pipeline inside the step; it names the files already
        raise
    except Exception as error:
        name, reason = type(step).__name__, " ".join(str(error).split())
        for loader, (what, path) in reads.items():
            if not isinstance(step, loader):
                continue
            if isinstance(error, FileNotFoundError):
                raise MissingFileError(
                    f"{what} {path} does not exist, although the data set lists it. Restore it, or "
                    "correct `ann_file`, `data_prefix` or the file suffixes of the data set."
                ) from error
            raise SampleError(
                f"{what} {path} cannot be decoded ({name}: {reason}). Replace the file, or take it "
                "out of the data set's list."
            ) from error
        raise SampleError(
            f"{name} failed on picture {picture} with label file {label}: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _at_size_of_image(results: dict, picture: str | None, label: str | None) -> np.ndarray:
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
            f"picture {picture} has {size[0]} x {size[1]} pixels (height x width), but its label "
            f"file {label} {' x '.join(map(str, read.shape))}. Give both the same size."
        )
    return read
