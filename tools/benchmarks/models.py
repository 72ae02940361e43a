"""What is measured of whole models: ZegOT's training step, inference by sliding window."""

from __future__ import annotations

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


def build_model(config: str, tiny: bool, device: str, **changes: Any) -> EncoderDecoder:
    """The model of a config over a CLIP with random weights.

    Args:
        config: Path below ``configs/``.
        tiny: Whether to put a very small CLIP in the place of ViT-B/16.
        device: Where to.
        changes: Entries of the model to merge in.
    """
    whole = Config.fromfile(CONFIGS / config)
    whole.merge_from_dict({"model": changes})
    model = whole.model
    model.clip = ConfigDict(model=TINY_CLIP if tiny else model.clip.model)
    for part in (model.backbone, model.neck, model.decode_head, model.neck.text):
        part.pop("clip", None)
    init_default_scope("mmseg")
    torch.manual_seed(0)
    return MODELS.build(model).to(device)


def zegot_case(tiny: bool, device: str) -> Case:
    """A training step of ZegOT: the frozen tower without a graph, and with one."""
    size = 64 if tiny else 512
    images = torch.randn(1, 3, size, size, device=device)
    labels = torch.randint(0, 15, (1, size // 32, size // 32), device=device)
    labels = labels.repeat_interleave(32, 1).repeat_interleave(32, 2)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels))]
    config = "zegot/voc_512.py"
    frozen = build_model(config, tiny, device).train()
    # One learned token below the tower is enough for the graph to go through all of it.
    through = build_model(config, tiny, device, backbone=dict(visual_prompts=dict(num_tokens=1)))
    through.train()

    def step(model: EncoderDecoder) -> None:
        model.zero_grad()
        losses = model.loss(images, samples)
        torch.stack([value for name, value in losses.items() if "loss" in name]).sum().backward()

    return Case(lambda: step(frozen), lambda: step(through), "graph through the backbone")


def exported_case(tiny: bool, folder: Path) -> Case:
    """One window of 512 x 512 pixels by ONNX Runtime, against the model it was exported from.

    Args:
        tiny: Whether to put a very small CLIP in the place of ViT-B/16, and a window of 64 x 64.
        folder: The exported model; written if it is not there, which takes minutes.
    """
    from mmseg_otseg.apis import with_classes
    from mmseg_otseg.export import export_folder
    from mmseg_otseg.runtime import OTSegRuntime

    side = 64 if tiny else 512
    window = dict(mode="slide", crop_size=(side, side), stride=(side, side))
    model = with_classes(build_model("otseg/voc_512.py", tiny, "cpu", test_cfg=window).eval())
    cfg = Config.fromfile(CONFIGS / "otseg/voc_512.py")
    if not folder.exists():
        export_folder(model, cfg, folder, size=(side, side))
    runtime = OTSegRuntime(folder, threads=torch.get_num_threads())
    image = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8)

    def ours() -> Tensor:
        return torch.from_numpy(runtime.run(image.numpy(), runtime.known))

    @torch.no_grad()
    def other() -> Tensor:
        bgr = image.flip(3).permute(0, 3, 1, 2)
        data = model.data_preprocessor({"inputs": list(bgr)}, False)
        shape = torch.Size((side, side))
        return model.encode_decode(data["inputs"], [dict(ori_shape=shape, img_shape=shape)])

    def check() -> dict[str, float]:
        return {"probability": relative(ours(), other())}

    return Case(ours, other, "the model in torch", check, 1.0)


def inference_case(tiny: bool, device: str) -> Case:
    """A picture by sliding window, against one crop at a time with the text encoded anew."""
    picture = torch.randn(1, 3, *((128, 256) if tiny else (512, 1024)), device=device)
    window = dict(crop_size=(128, 128), stride=(106, 106)) if tiny else {}
    model = build_model("otseg/voc_512.py", tiny, device, test_cfg=window).eval()
    prompts = model.neck.text
    clip: Any = load_clip(TINY_CLIP if tiny else "ViT-B-16").to(device)
    texts = open_clip.tokenize(
        [template.format(name) for name in prompts.split.classes for template in prompts.templates]
    ).to(device)

    @torch.no_grad()
    def ours() -> Tensor:
        return model.predict(picture)[0].seg_logits.data

    @torch.no_grad()
    def other() -> Tensor:
        encoded = clip.encode_text(texts, normalize=True)
        prompts.embeddings.copy_(encoded.view_as(prompts.embeddings))
        size = picture.shape[2:]
        metas = [dict(ori_shape=size, img_shape=size)]
        return model.postprocess_result(EncoderDecoder.slide_inference(model, picture, metas))[
            0
        ].seg_logits.data

    return Case(
        ours,
        other,
        "crop by crop, text every time",
        lambda: {"probability": relative(ours(), other())},
        3.0 if device != "cpu" else 1.5,
    )
