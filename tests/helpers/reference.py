"""The authors' small models, rebuilt from their arrays."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg_otseg_cli.authors_to_mmseg import convert_state_dict
from torch import Tensor, nn

import mmseg_otseg.models  # noqa: F401 (registers the components)
from tests.helpers.paths import DATA


class Reference:
    """Arrays of ``{method}_tiny_{name}.npz`` and the model they describe."""

    def __init__(self, name: str, method: str = "otseg") -> None:
        self.method = method
        with np.load(DATA / f"{method}_tiny_{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def config(self, key: str) -> Any:
        return self.arrays[f"config/{key}"].tolist()

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): self.tensor(key)
            for key in self.arrays
            if key.startswith(prefix)
        }

    @cached_property
    def split(self) -> dict[str, Any]:
        names = [f"class{index}" for index in range(self.config("num_classes"))]
        unseen = set(range(len(names))).difference(self.config("seen"))
        return {"classes": names, "unseen": sorted(unseen)}

    def clip(self) -> dict[str, Any]:
        (name,) = (key for key in self.arrays if key.endswith("positional_embedding"))
        vision = {name: self.config(name) for name in ("patch_size", "width", "layers")}
        positions = len(self.arrays[name]) - 1
        vision["image_size"] = int(positions**0.5) * vision["patch_size"]
        vision["head_width"] = vision["width"] // self.config("heads")
        text = {"width": 16, "heads": 2, "layers": 1, "vocab_size": 49408}
        model = dict(embed_dim=self.config("embed_dim"), vision_cfg=vision, text_cfg=text)
        return dict(model=dict(model, quick_gelu=True))

    def model_config(self, folder: Path) -> dict[str, Any]:
        """Config of the model as users write it, with every dropout at 0."""
        np.save(folder / "text.npy", self.arrays["input/text_embeddings"])
        prompts = dict(num_tokens=self.config("visual_prompt_tokens"), dropout=0.0)
        text = dict(type="PrecomputedPrompts", path=str(folder / "text.npy"), split=self.split)
        if self.method == "zegclip":
            head = dict(type="ZegCLIPHead", decoder_heads=self.config("decoder_heads"))
        else:
            head = dict(type="MPSAHead", epsilon=self.config("epsilon"))
        for name in ("embed_dim", "num_classes", "decoder_layers"):
            head[name] = self.config(name)
        return dict(
            type="EncoderDecoder",
            data_preprocessor=dict(
                type="SegDataPreProcessor",
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                bgr_to_rgb=True,
            ),
            backbone=dict(type="CLIPBackbone", clip=self.clip(), visual_prompts=prompts),
            neck=dict(type="DLFANeck", clip=self.clip(), text=text),
            decode_head=dict(head, dropout=0.0),
            test_cfg=dict(mode="whole"),
        )

    def output(self, kind: str, class_map: str) -> Tensor:
        """An output in training: ``kind`` is ``logits``, ``loss_mask`` or ``loss_dice``."""
        train = "train_" if kind == "logits" else ""
        name = "" if self.method == "zegclip" else f"{class_map}_"
        return self.tensor(f"output/{train}{name}{kind}")

    def model(self, folder: Path) -> nn.Module:
        """The model with the authors' weights."""
        model = MODELS.build(ConfigDict(self.model_config(folder)))
        state, _ = convert_state_dict(self.group("state/"))
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not missing and not unexpected
        return model

    def samples(self) -> list[SegDataSample]:
        """Ground truth as full class indices."""
        labels = self.tensor("input/label_seen_index")
        seen = torch.tensor([*self.config("seen"), *[255] * (256 - len(self.config("seen")))])
        return [SegDataSample(gt_sem_seg=PixelData(data=seen[label])) for label in labels]


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Largest absolute difference, in units of the largest expected magnitude."""
    return float((value.detach() - expected).abs().max() / expected.abs().max())
