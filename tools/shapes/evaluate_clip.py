#!/usr/bin/env python
"""Measure how often the CLIP of the shapes benchmark names an image with a single object.

It names the class of which the mean text embedding, over six prompts, has the highest cosine with
the image's global token. ``tools/test.py configs/shapes/training_free.py`` measures its patches.
"""

from __future__ import annotations

from mmseg_otseg_cli import run
from mmseg_otseg_cli.options import add_cfg_options, new_parser

IMAGES = 1000


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("config", help="a config with `clip` and `preprocess`")
    parser.add_argument("--subset", default="val")
    add_cfg_options(parser)
    args = parser.parse_args()
    import open_clip
    import torch
    import torch.nn.functional as F
    from mmengine.config import Config

    from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, Composition, render_scene
    from mmseg_otseg.models.clip import load_clip
    from mmseg_otseg.models.text import OTSEG_6

    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options or {})
    clip = load_clip(config.clip.model.to_dict(), config.clip.pretrained).eval()
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    mean, std = (torch.tensor(config.preprocess[key]) for key in ("mean", "std"))
    with torch.no_grad():
        rows = []
        for name in SHAPES_CLASSES:
            tokens = tokenize([t.format(name) for t in OTSEG_6], clip.context_length)
            rows.append(clip.encode_text(tokens, normalize=True).mean(0))
        text = F.normalize(torch.stack(rows), dim=-1)
        correct, single = 0, Composition(objects=(1, 1), radius=(0.15, 0.25))
        for index in range(IMAGES):
            scene = render_scene(args.subset, index, composition=single)
            image = ((torch.from_numpy(scene.image) - mean) / std).permute(2, 0, 1)[None]
            guess = (clip.encode_image(image, normalize=True) @ text.T).argmax().item()
            correct += guess == scene.objects[0].label
    print(f"right: {100 * correct / IMAGES:.1f} % of {IMAGES} images")


if __name__ == "__main__":
    run(main)
