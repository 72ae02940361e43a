"""One folder with everything that an exported model needs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log

from mmseg_otseg.engine.config import type_name
from mmseg_otseg.errors import UserError
from mmseg_otseg.inference.exported import FORMAT, METADATA, MODEL, VOCABULARY
from mmseg_otseg.inference.loading import pipeline_for_testing
from mmseg_otseg.models import SimilarityHead
from mmseg_otseg.models.clip import shared_clip
from mmseg_otseg.version import __version__

from .check import EXACT, ROUGH, check_folder
from .onnx_files import OPSET, quantize, write_graph, write_text_encoder

MIN_TORCH = (2, 10)


def export_folder(
    model: Any,
    cfg: Config,
    out: str | os.PathLike,
    size: tuple[int, int] | None = None,
    checkpoint: str | os.PathLike | None = None,
    int8: bool = False,
) -> dict[str, float]:
    """Write a model as ONNX files that take any images and any class names.

    The folder appears only after the exported files were run and agree with the model.

    Args:
        model: A segmentor of this package with its weights, on the CPU.
        cfg: Its config, which says how test images are resized and cut into windows.
        out: The folder to write; it must not exist, or be empty.
        size: Rows and columns that the model's images must have, multiples of the patch: those of
            the config's windows or, without windows, the size that its pipeline gives every image.
            None takes images of any size.
        checkpoint: The file the weights came from, to note its SHA-256.
        int8: Whether to round the weights of the segmenter's matrix products to 8 bits after the
            check, for speed; its values then differ slightly from the model's.

    Returns:
        The largest difference of the final files from the model, by check.

    Raises:
        ImportError: If the packages of the extra ``export`` are missing, or torch is too old.
        UserError: If an argument does not fit, torch cannot export the model's CLIP, or what was
            written differs from the model.
        FileExistsError: If the folder is not empty.
    """
    _check_arguments(model, size)
    resize = how_to_resize(cfg)
    slides = window_settings(model.test_cfg, resize, size)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not empty: choose a folder that does not exist yet")
    out.parent.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    head, prepares = model.decode_head, model.data_preprocessor
    clip = bytes(model.backbone.clip.fingerprint.tolist()).hex()  # which text has to match
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its operator is none of ONNX's
    try:
        with torch.no_grad(), shared_clip():  # text is encoded several times, by one CLIP
            write_graph(model, part / MODEL, size)
            prompts = write_text_encoder(model.neck.text, part)
            split = model.neck.text.split
            np.savez(
                part / VOCABULARY,
                names=np.array(split.joined_names, dtype=np.str_),
                text=model.neck.text().float().numpy(),
                seen=np.array([name in model.neck.seen_names for name in split.classes]),
                palette=np.array(model.dataset_meta["palette"], dtype=np.uint8),
                clip=np.array(clip),
            )
            metadata = {
                "format": FORMAT,
                "version": __version__,
                "torch": torch.__version__,
                "opset": OPSET,
                "checkpoint_sha256": checkpoint
                and hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest(),
                "clip": clip,
                "patch": list(model.backbone.patch_size),
                "size": None if size is None else list(size),
                "int8": int8,
                "align_corners": bool(model.align_corners),
                "mean": prepares.mean.flatten().tolist(),
                "std": prepares.std.flatten().tolist(),
                "seen_bias": float(head.seen_bias),
                "softmax_scale": head.scale if isinstance(head, SimilarityHead) else None,
                "resize": resize,
                "windows": slides,
                "prompts": prompts,
            }
            (part / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
            print_log("comparing what was written with the model", "current")
            differences = check_folder(part, model, EXACT)
            if int8:
                quantize(part / MODEL)
                differences = check_folder(part, model, ROUGH)
        part.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        shutil.rmtree(part, ignore_errors=True)
    print_log(f"exported to {out}", "current", level=logging.INFO)
    return differences


def how_to_resize(cfg: Config) -> dict[str, Any] | None:
    """How the test pipeline resizes images: ``scale`` (width, height) and ``keep_ratio``.

    Raises:
        UserError: If the pipeline does something else to the images.
    """
    resize = None
    for step in pipeline_for_testing(cfg):
        name = type_name(step)
        if name == "Resize" and resize is None:
            scale = step.get("scale")
            if scale is None or step.get("scale_factor") is not None:
                raise UserError("the test pipeline must resize to a `scale` to be exported")
            resize = {"scale": list(scale), "keep_ratio": bool(step.get("keep_ratio", False))}
        elif not name.startswith(("Load", "Pack")):
            raise UserError(
                f"the test pipeline has the step {name}, which an exported model cannot repeat; "
                "it can load, resize once, and pack"
            )
    return resize


def window_settings(
    test_cfg: Mapping[str, Any], resize: Mapping[str, Any] | None, size: tuple[int, int] | None
) -> dict[str, Any] | None:
    """How an exported model cuts images into windows.

    Returns:
        ``size`` and ``stride`` of the windows, [rows, columns] in pixels; None for whole images.

    Raises:
        UserError: If neither windows nor whole images have the ``size`` that they must have.
    """
    if test_cfg.get("mode", "whole") == "slide":
        crop, stride = list(test_cfg["crop_size"]), list(test_cfg["stride"])
        if size is not None and list(size) != crop:
            raise UserError(
                f"the config's windows have {crop[0]} x {crop[1]} pixels: export for that size, "
                "for any size (--dynamic), or change test_cfg.crop_size"
            )
        return {"size": crop, "stride": stride}
    fixed = None if resize is None or resize["keep_ratio"] else tuple(resize["scale"][::-1])
    if size is not None and size != fixed:
        raise UserError(
            "the config segments whole images, which differ in size: export for any size "
            "(--dynamic), or set model.test_cfg to mode='slide' with crop_size and stride"
        )
    return None


def _check_arguments(model: Any, size: tuple[int, int] | None) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'exporting needs more packages: pip install "mmseg_otseg[export]" ({error})'
        ) from error
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < MIN_TORCH:
        raise ImportError(
            f"exporting needs torch {MIN_TORCH[0]}.{MIN_TORCH[1]} or later, here is "
            f"{torch.__version__}: export the checkpoint in an environment of the onedl stack. "
            "What is exported runs anywhere."
        )
    if model.backbone.clip.dtype != torch.float32:
        raise UserError(
            "only models in full precision are exported: set model.clip.precision=fp32 (the "
            "checkpoint fits it)"
        )
    patch = model.backbone.patch_size
    if size is not None and any(side < 1 or side % step for side, step in zip(size, patch)):
        raise UserError(
            f"height and width must be multiples of CLIP's patch, {patch[0]} x {patch[1]} pixels, "
            f"got {size[0]} x {size[1]}"
        )
