"""What is measured of whole models: training steps, inference by sliding window, precisions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_otseg.models import load_clip

from .cases import Case, relative

CONFIGS = Path(__file__).parents[2] / "configs"
TINY_CLIP = dict(
    embed_dim=32,
    vision_cfg=dict(image_size=64, patch_size=16, width=48, layers=6, head_width=12),
    text_cfg=dict(width=32, heads=2, layers=2, context_length=77, vocab_size=49408),
)


def build_model(
    config: str, tiny: bool, device: str, precision: str = "fp32", **changes: Any
) -> EncoderDecoder:
    """The model of a config over a CLIP with random weights.

    Args:
        config: Path below ``configs/``.
        tiny: Whether to put a very small CLIP in the place of ViT-B/16.
        device: Where to.
        precision: Of CLIP's towers.
        changes: Entries of the model to merge in.
    """
    whole = Config.fromfile(CONFIGS / config)
    whole.merge_from_dict({"model": changes})
    model = whole.model
    model.clip = ConfigDict(model=TINY_CLIP if tiny else model.clip.model, precision=precision)
    for part in (model.backbone, model.neck, model.decode_head, model.neck.text):
        part.pop("clip", None)
    init_default_scope("mmseg")
    torch.manual_seed(0)
    return MODELS.build(model).to(device)


Step = Callable[[EncoderDecoder], dict[str, Tensor]]


def training_step(batch: int, tiny: bool, device: str, side: int = 512) -> Step:
    """What runs a training step of a model, losses and gradients, on images of its own.

    Args:
        batch: Number of images.
        tiny: Whether they are of 64 x 64 pixels in the place of 512 x 512.
        device: Where they are.
    """
    size = 64 if tiny else side
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(0, 15, (1, size // 32, size // 32), device=device)
    labels = labels.repeat_interleave(32, 1).repeat_interleave(32, 2)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels))] * batch

    def step(model: EncoderDecoder) -> dict[str, Tensor]:
        model.zero_grad()
        losses = {k: v for k, v in model.loss(images, samples).items() if "loss" in k}
        torch.stack(list(losses.values())).sum().backward()
        return losses

    return step


def zegot_case(tiny: bool, device: str) -> Case:
    """A training step of ZegOT: the frozen tower without a graph, and with one."""
    config, step = "zegot/voc_512.py", training_step(1, tiny, device)
    frozen = build_model(config, tiny, device).train()
    # One learned token below the tower is enough for the graph to go through all of it.
    through = build_model(config, tiny, device, backbone=dict(visual_prompts=dict(num_tokens=1)))
    through.train()
    return Case(lambda: step(frozen), lambda: step(through), "graph through the backbone", dict)


def precision_step_case(tiny: bool, device: str, precision: str) -> Case:
    """A whole training step of OTSeg, 4 images, CLIP's tower in half precision and in float32."""
    config, step = "otseg/voc_512.py", training_step(4, tiny, device)
    half = build_model(config, tiny, device, precision).train()
    full = build_model(config, tiny, device).train()

    def check() -> dict[str, float]:
        half.eval(), full.eval()  # no dropout: only the precision differs then
        found, expected = step(half), step(full)
        half.train(), full.train()
        return {"loss": max(relative(found[key], expected[key]) for key in expected)}

    return Case(lambda: step(half), lambda: step(full), "float32 tower", check)


def image_and_windows(tiny: bool, device: str) -> tuple[Tensor, dict[str, Any]]:
    """An image (1, 3, H, W) for inference by sliding window, and the model's ``test_cfg``."""
    image = torch.randn(1, 3, *((128, 256) if tiny else (512, 1024)), device=device)
    return image, dict(crop_size=(128, 128), stride=(106, 106)) if tiny else {}


@torch.no_grad()
def predict(model: EncoderDecoder, image: Tensor) -> Tensor:
    """Values of the classes at the size of the image."""
    return model.predict(image)[0].seg_logits.data


def precision_inference_case(tiny: bool, device: str, precision: str) -> Case:
    """An image by sliding window, CLIP's tower in half precision and in float32."""
    image, window = image_and_windows(tiny, device)
    half, full = (
        build_model("otseg/voc_512.py", tiny, device, kind, test_cfg=window).eval()
        for kind in (precision, "fp32")
    )

    def check() -> dict[str, float]:
        return {"probability": relative(predict(half, image), predict(full, image))}

    return Case(lambda: predict(half, image), lambda: predict(full, image), "float32 tower", check)


def inference_case(tiny: bool, device: str) -> Case:
    """An image by sliding window, against one crop at a time with the text encoded anew."""
    image, window = image_and_windows(tiny, device)
    model = build_model("otseg/voc_512.py", tiny, device, test_cfg=window).eval()
    prompts = model.neck.text
    clip: Any = load_clip(TINY_CLIP if tiny else "ViT-B-16").to(device)
    texts = open_clip.tokenize(
        [template.format(name) for name in prompts.split.classes for template in prompts.templates]
    ).to(device)

    @torch.no_grad()
    def other() -> Tensor:
        encoded = clip.encode_text(texts, normalize=True)
        prompts.embeddings.copy_(encoded.view_as(prompts.embeddings))
        metas = [dict(ori_shape=image.shape[2:], img_shape=image.shape[2:])]
        values = EncoderDecoder.slide_inference(model, image, metas)
        return model.postprocess_result(values)[0].seg_logits.data

    def check() -> dict[str, float]:
        return {"probability": relative(predict(model, image), other())}

    return Case(lambda: predict(model, image), other, "crop by crop, text every time", check)
