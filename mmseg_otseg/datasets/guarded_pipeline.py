"""Pipelines that hide unseen classes as soon as labels are read, and name files in errors."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import Compose, LoadAnnotations, LoadImageFromFile
from mmengine.dataset import Compose as DatasetCompose
from mmseg.datasets.transforms import LoadAnnotations as LoadAnnotations8Bit
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import check_image_file
from mmseg_otseg.imaging.reading import ORIENTATION
from mmseg_otseg.structures import IGNORED

from .label_rule import LabelRule, LoadLabels, SampleError

COMPOSED = (Compose, DatasetCompose)
UNHIDDEN_LABEL = "unhidden_seg_map"
_LABEL = "gt_seg_map"
_HIDDEN = "unseen_classes_hidden"  # marks results to whose label map the rule was applied
# The attributes in which mmcv's wrapping transforms (KeyMapper, RandomChoice, RandomApply,
# TestTimeAug, ...) keep the transforms they wrap.
_NESTED = ("transforms", "subroutines")


class GuardedPipeline(Compose):
    """A pipeline that applies a rule to the label map as soon as it appears.

    Whichever transform adds ``gt_seg_map`` to the results, at any depth, later transforms see only
    the output of the rule. Hidden classes therefore cannot influence where an image is cropped.
    mmseg's ``LoadAnnotations``, which reads 8 bits, gives way to :class:`LoadLabels`. Transforms
    that wrap others, or that ignore or pad with 255 where it is a class, are copied; all others are
    used directly.

    Args:
        transforms: Built transforms; each takes and returns the results dict.
        rule: What label values mean, and which labels are hidden.
        keep_unhidden: Whether the results also get the label map before hiding, as
            ``unhidden_seg_map`` (H, W), which is then transformed in the same way as
            ``gt_seg_map``.
    """

    def __init__(
        self, transforms: Sequence[Callable], rule: LabelRule, keep_unhidden: bool = False
    ) -> None:
        self.rule, self.keep_unhidden = rule, keep_unhidden
        super().__init__([self._guarded(transform) for transform in transforms])

    def _guarded(self, transform: Any) -> Callable:
        """Replace all pipelines in a transform with guarded ones, and loaders of labels."""
        if isinstance(transform, COMPOSED):
            return GuardedPipeline(transform.transforms, self.rule, self.keep_unhidden)
        if type(transform) is LoadAnnotations8Bit:
            reduces = self.rule.reduce_zero_label
            if transform.reduce_zero_label not in (None, reduces):
                raise UserError(
                    f"LoadAnnotations has reduce_zero_label={transform.reduce_zero_label}, its "
                    f"dataset {reduces}: set it in the dataset alone"
                )
            return LoadLabels(transform)
        guarded: dict[str, Any] = {}
        for name in _NESTED:
            inner = getattr(transform, name, None)
            items: list = inner if isinstance(inner, list) else [inner]
            if any(isinstance(item, COMPOSED) for item in items):
                pipelines = [self._guarded(item) for item in items]
                guarded[name] = pipelines if isinstance(inner, list) else pipelines[0]
        ignored = self.rule.ignored
        if ignored != IGNORED:  # mmseg's and mmcv's transforms ignore or pad with 255
            guarded |= {
                name: ignored
                for name in ("ignore_index", "seg_pad_val")
                if getattr(transform, name, None) == IGNORED
            }
            padding = getattr(transform, "pad_val", None)
            if isinstance(padding, dict) and padding.get("seg", IGNORED) == IGNORED:
                guarded["pad_val"] = {**padding, "seg": ignored}
        if guarded:
            transform = copy.copy(transform)
            vars(transform).update(guarded)
        return transform

    def transform(self, results: dict) -> dict | None:
        """Run the transforms on the results dict of one sample; None if one of them returns None.

        Raises:
            SampleError: If a file does not exist or cannot be decoded, the rule refuses a label
                map, or another transform fails.
        """
        image, label = results.get("img_path"), results.get("seg_map_path")
        for step in self.transforms:
            if isinstance(step, LoadLabels) and results.get("label_map") != self.rule.label_map:
                step = step.plain  # the sample says what its values of 8 bits mean
            labeled = _LABEL in results
            output = _run(step, results, image, label)
            if output is None:
                return None
            results = output
            appeared = not labeled and isinstance(results.get(_LABEL), np.ndarray)
            if appeared and not results.get(_HIDDEN):  # not yet by a nested pipeline
                path = label or image or "of this sample"
                read = _at_size_of_image(results, image, label)
                unhidden = self.rule.labels(read, path, raw=isinstance(step, LoadLabels))
                results[_LABEL] = self.rule.hide(unhidden)
                results[_HIDDEN] = True
                if self.keep_unhidden:
                    results[UNHIDDEN_LABEL] = unhidden
                    results.setdefault("seg_fields", []).append(UNHIDDEN_LABEL)
        return results

    def run_with_unhidden(self, info: dict, keep: Callable[[Callable], bool]) -> dict:
        """Run some of the transforms, and also keep the label map as it was before hiding classes.

        Args:
            info: The dataset's entry for the sample, from ``get_data_info``.
            keep: Returns whether to run a given transform.

        Returns:
            The results, with ``unhidden_seg_map`` (H, W) if a transform reads labels.

        Raises:
            SampleError: As in :meth:`transform`.
        """
        steps = [step for step in self.transforms if keep(step)]
        results = GuardedPipeline(steps, self.rule, keep_unhidden=True).transform(info)
        if results is None:
            raise SampleError(f"the pipeline returned no result for image {info.get('img_path')}.")
        return results

    def read_label(self, info: dict) -> np.ndarray:
        """Read a label map with the pipeline's own loader, without hiding or augmenting anything.

        Args:
            info: The dataset's entry for the sample, from ``get_data_info``.

        Returns:
            Labels, (H, W), see :class:`LabelRule`.

        Raises:
            SampleError: As in :meth:`transform`, and if no transform of the
                pipeline reads labels.
        """

        # mmseg's loaders need only the label file; others may depend on earlier transforms.
        loaders = [step for step in self.transforms if isinstance(step, LoadAnnotations)]
        for step in loaders[:1] or self.transforms:
            results = GuardedPipeline([step], self.rule, keep_unhidden=True).transform(info)
            if results is None:
                break
            if UNHIDDEN_LABEL in results:
                return results[UNHIDDEN_LABEL]
            info = results
        raise SampleError(
            f"no transform of the pipeline reads the label of {info.get('img_path')}; add "
            "dict(type='LoadAnnotations') to it."
        )


def _run(step: Callable, results: dict, image: str | None, label: str | None) -> dict | None:
    """Run one transform; if it fails, name the files in the error."""
    what, path = "", None
    if isinstance(step, LoadImageFromFile):
        what, path = "image", image
    elif isinstance(step, LoadAnnotations):
        what, path = "label file", label
    try:
        if path and os.path.exists(path):  # not s3:// or missing
            check_image_file(path)
        return step(results)
    except SampleError:  # from a nested pipeline; it already names the files
        raise
    except Exception as error:
        name, reason = type(step).__name__, " ".join(str(error).split())
        problem = (
            f"{name} failed on image {image} with label file {label}: "
            f"{type(error).__name__}: {reason}"
        )
        if what and isinstance(error, FileNotFoundError):
            problem = (
                f"{what} {path} does not exist, although the dataset lists it. Restore it, or "
                "correct `ann_file`, `data_prefix` or the file suffixes of the dataset."
            )
        elif what:
            problem = (
                f"{what} {path} cannot be decoded ({name}: {reason}). Replace the file, or "
                "remove it from the dataset's list."
            )
        raise SampleError(problem) from error


def _at_size_of_image(results: dict, image: str | None, label: str | None) -> np.ndarray:
    """The label map (H, W) that was just read, after checking that it has the image's size."""
    read, size = results[_LABEL], tuple(results.get("ori_shape", ()))[:2]
    if not size or read.ndim != 2 or read.shape == size:
        return read
    remedy = "Give both the same size."
    if read.shape == size[::-1] and image and os.path.isfile(image):
        with Image.open(image) as photograph:
            if photograph.getexif().get(ORIENTATION, 1) > 4:  # height and width are exchanged
                remedy = (
                    "The photograph is turned by its EXIF tag and the label is not: turn the label "
                    "file the same way, or save the photograph without the tag."
                )
    raise SampleError(
        f"image {image} has {size[0]} x {size[1]} pixels (height x width), but its label "
        f"file {label} {' x '.join(map(str, read.shape))}. {remedy}"
    )
