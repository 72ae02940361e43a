"""Checking that an exported folder computes the same as its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.structures import SegDataSample

from mmseg_otseg.errors import UserError
from mmseg_otseg.inference import OTSegRuntime, copy_with_classes
from mmseg_otseg.structures.class_split import KNOWN_CLASSES

# The largest differences allowed in full precision, and with weights rounded to 8 bits.
EXACT = {"text": 1e-4, "probabilities": 1e-4, "labels": 1e-3}
ROUGH = {"text": 1e-4, "probabilities": 0.1, "labels": 1.0}
MAX_SENTENCES = 2400  # of a vocabulary; a CPU encodes some dozens a second
TIE = 1e-5  # classes whose probabilities differ by less are equally good
# Names of everyday things, for vocabularies other than the model's own.
NAMES = (*KNOWN_CLASSES["cocostuff"], *KNOWN_CLASSES["ade20k"])


def check_folder(folder: Path, model: Any, bounds: Mapping[str, float] = EXACT) -> dict[str, float]:
    """Run an exported folder and its model on the same images and vocabularies.

    The vocabularies are the config's, a single class and, where names can be encoded, up to 300;
    the images are smooth random ones, one and three at a time, and of other sizes where the folder
    takes them.

    Args:
        folder: What :func:`~mmseg_otseg.export.export_folder` wrote.
        model: The model it was made from.
        bounds: The largest difference allowed in each check.

    Returns:
        ``text``: the largest difference in a text embedding; ``probabilities``: in a probability;
        ``labels``: the share of pixels in which the exported model chooses a class that is not one
        of the model's best.

    Raises:
        UserError: If a difference is larger than its bound.
    """
    runtime = OTSegRuntime(folder)
    rng = np.random.default_rng(0)
    found = {"text": 0.0, "probabilities": 0.0, "labels": 0.0}
    own = list(model.neck.text.split.joined_names)
    vocabularies = [own]
    if runtime.takes_names:
        sentences = len(getattr(model.neck.text, "templates", ())) or 1
        many = list(dict.fromkeys((*own, *NAMES)))[: min(300, MAX_SENTENCES // sentences)]
        vocabularies += [own[:1], many]
    rows, columns = model.backbone.patch_size
    sizes = [(4 * rows, 4 * columns), (7 * rows, 3 * columns), (2 * rows, 9 * columns)]
    for names in vocabularies:
        named = copy_with_classes(model, names)
        classes = runtime.vocabulary(names)
        with torch.no_grad():
            text = named.neck.text().float().numpy()
        found["text"] = max(found["text"], float(np.abs(text - classes.text).max()))
        for size in sizes if runtime.size is None else [runtime.size]:
            images = _images(rng, 1 if len(names) > 100 else 3, size)
            ours = runtime.run(images, classes)
            theirs = _model_values(named, images)
            found["probabilities"] = max(found["probabilities"], float(np.abs(ours - theirs).max()))
            chosen = np.take_along_axis(theirs, ours.argmax(1)[:, None], 1)[:, 0]
            other = theirs.max(1) - chosen > TIE
            found["labels"] = max(found["labels"], float(other.mean()))
    wrong = [name for name, bound in bounds.items() if not found[name] <= bound]
    if wrong:
        raise UserError(
            f"the exported model differs from the model in its {' and '.join(wrong)}: "
            + ", ".join(f"{name} {found[name]:.1e} (at most {bounds[name]:.0e})" for name in wrong)
            + ". Nothing was written."
        )
    return found


def _images(rng: np.random.Generator, number: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth random images, shape (number, h, w, 3), RGB, uint8."""
    coarse = torch.from_numpy(rng.random((number, 3, 5, 5), dtype=np.float32))
    fine = torch.from_numpy(rng.random((number, 3, *size), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
    mixed = (0.8 * smooth + 0.2 * fine).clamp(0, 1).mul(255).byte()
    return mixed.permute(0, 2, 3, 1).contiguous().numpy()


@torch.no_grad()
def _model_values(model: Any, images: np.ndarray) -> np.ndarray:
    """What the model itself predicts, shape (B, K, h, w)."""
    bgr = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).permute(0, 3, 1, 2)
    shape = tuple(images.shape[1:3])
    samples = [SegDataSample(metainfo={"ori_shape": shape, "img_shape": shape}) for _ in bgr]
    data = model.data_preprocessor({"inputs": list(bgr), "data_samples": samples}, False)
    metas = [dict(sample.metainfo, img_shape=torch.Size(shape)) for sample in data["data_samples"]]
    return model.encode_decode(data["inputs"][..., : shape[0], : shape[1]], metas).numpy()
