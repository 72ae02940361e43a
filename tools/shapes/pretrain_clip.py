#!/usr/bin/env python
"""Train the tiny CLIP of the shapes benchmark from images and captions, never from masks.

Plain CLIP: global image token against caption, softmax over the batch in both directions. A caption
is a positive for every image of the batch of which it is true.

In the first ``single_steps`` every image shows one large object and the text tower stands still.
Otherwise the two towers soon agree on colors, which explain most of the loss, texts that differ in
the shape alone become equal, and then neither tower has a reason to learn shapes for a long time.

The run continues by itself from ``WORK_DIR/last.pt`` if it was stopped, and ends in the same
weights as an unbroken one: every image and caption is a function of the seed and the step.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the imports from `tools`
from mmseg_otseg_cli import run
from mmseg_otseg_cli.options import add_cfg_options, new_parser


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("config", help="configs/shapes/clip/shapes_clip.py or one like it")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/shapes_clip"))
    parser.add_argument("--device", help="e.g. cuda:0 or cpu. Default: the GPU if there is one")
    add_cfg_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds

import open_clip
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmseg_otseg.datasets.shapes import Composition, render_scene
from mmseg_otseg.engine import read_checkpoint
from mmseg_otseg.files import write_atomically
from tools.shapes.captions import VOCABULARY, caption_scene, scene_facts

SAVE_INTERVAL = 500  # steps between checkpoints
TOKENIZER = open_clip.get_tokenizer("ViT-B-32")


class CaptionedScenes(Dataset):
    """Images with captions; item ``i`` depends on the seed and ``i`` alone.

    The first ``singles`` items show one large object each.

    An item is (image (3, H, W) uint8 RGB, tokens (context_length,), facts of the image and facts
    the caption claims, both (NUM_FACTS,) bool).
    """

    def __init__(self, settings: dict, size: int, context_length: int) -> None:
        self.easy = Composition(objects=(1, 1), radius=(0.2, 0.3))
        self.seed = settings["seed"]
        self.length = settings["steps"] * settings["batch_size"]
        self.singles = settings["single_steps"] * settings["batch_size"]
        self.size, self.context_length = size, context_length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        composition = self.easy if index < self.singles else Composition()
        scene = render_scene("pretrain", index, self.seed, self.size, composition)
        caption = caption_scene(scene, seed=index)
        return (
            torch.from_numpy(scene.image.transpose(2, 0, 1).copy()),
            TOKENIZER(caption.text, context_length=self.context_length)[0],
            torch.from_numpy(scene_facts(scene)),
            torch.from_numpy(caption.facts),
        )


def used_tokens() -> Tensor:
    """Sorted CLIP token ids that captions can contain, with padding, start and end."""
    return TOKENIZER(["", *VOCABULARY], 8).unique()


def build(model: dict, vocabulary: int) -> open_clip.CLIP:
    """A CLIP whose token table has ``vocabulary`` rows instead of all 49,408."""
    model = copy.deepcopy(model)
    model["text_cfg"]["vocab_size"] = vocabulary
    clip = open_clip.CLIP(**model)
    torch.nn.init.normal_(clip.token_embedding.weight, std=0.25)
    return clip


def contrastive(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross entropy in both directions with the target spread evenly over the positives.

    Args:
        logits: (R, C) scaled cosines.
        positive: (R, C) bool; rows and columns without a positive are left out.

    Returns:
        Scalar loss, the mean of the two directions.
    """
    loss = logits.new_zeros(())
    for scores, target in ((logits, positive), (logits.T, positive.T)):
        share = target.float() / target.sum(1, keepdim=True).clamp(min=1)
        row = -(share * scores.log_softmax(1)).sum(1)
        loss = loss + 0.5 * row.sum() / target.any(1).sum().clamp(min=1)
    return loss


def batch_loss(
    clip: open_clip.CLIP, images: Tensor, tokens: Tensor, facts: Tensor, claims: Tensor
) -> Tensor:
    """The training loss of one batch, a scalar.

    Args:
        clip: The model.
        images: (B, 3, H, W) normalized images.
        tokens: (B, context_length) caption tokens.
        facts: (B, NUM_FACTS) bool, what the images show.
        claims: (B, NUM_FACTS) bool, what the captions claim.
    """
    pooled = clip.encode_image(images, normalize=True).float()
    text = clip.encode_text(tokens, normalize=True).float()
    true = claims.float() @ (~facts).float().T == 0  # (captions, images)
    return contrastive(clip.logit_scale.exp() * text @ pooled.T, true)


def learning_rate(step: int, settings: dict) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < settings["warmup"]:
        return settings["lr"] * (step + 1) / settings["warmup"]
    share = (step - settings["warmup"]) / max(settings["steps"] - settings["warmup"], 1)
    return settings["lr"] * 0.5 * (1 + math.cos(math.pi * share))


def optimizer(clip: open_clip.CLIP, settings: dict) -> torch.optim.Optimizer:
    """AdamW without decay on biases, norms and the logit scale."""
    groups: list[dict] = [
        dict(params=[p for p in clip.parameters() if p.ndim > 1]),
        dict(params=[p for p in clip.parameters() if p.ndim <= 1], weight_decay=0.0),
    ]
    return torch.optim.AdamW(
        groups, settings["lr"], betas=(0.9, 0.98), weight_decay=settings["weight_decay"]
    )


def shipped_state(clip: open_clip.CLIP, ids: Tensor) -> dict[str, Tensor]:
    """Weights as shipped: float16, of the token table only the rows in use and their ids."""
    state = {k: v.detach().cpu().half().contiguous() for k, v in clip.state_dict().items()}
    rows = state.pop("token_embedding.weight")
    return {**state, "token_embedding.ids": ids, "token_embedding.rows": rows}


def train(config: Config, work_dir: Path, device: str, stop_at: int | None = None) -> Path | None:
    """Train, or go on training, and write ``shapes_clip.safetensors``.

    Args:
        config: ``clip.model``, ``preprocess`` and ``pretrain``.
        work_dir: Folder of the checkpoint, the log and the result.
        device: Torch device.
        stop_at: Save and stop after this step (as if killed), for tests.

    Returns:
        The written file, or None if stopped early.

    Raises:
        ValueError: If the work folder holds a run with other settings.
    """
    settings = config.pretrain.to_dict()
    model = config.clip.model.to_dict()
    work_dir.mkdir(parents=True, exist_ok=True)
    logger = MMLogger.get_instance("pretrain_clip", log_file=str(work_dir / "pretrain.log"))
    ids = used_tokens()
    torch.manual_seed(settings["seed"])
    clip = build(model, len(ids)).to(device)
    optim = optimizer(clip, settings)
    plan = repr((settings, model, config.preprocess.to_dict()))
    start, last = 0, work_dir / "last.pt"
    if last.exists():
        saved = read_checkpoint(last, device)
        if saved["plan"] != plan:
            raise ValueError(f"{last} belongs to other settings; choose another --work-dir")
        clip.load_state_dict(saved["model"])
        optim.load_state_dict(saved["optimizer"])
        start = saved["step"]
        logger.info(f"continuing {last} at step {start}")

    steps, batch = settings["steps"], settings["batch_size"]
    size, context = model["vision_cfg"]["image_size"], model["text_cfg"]["context_length"]
    data = CaptionedScenes(settings, size, context)
    order = range(start * batch, steps * batch)
    loader = DataLoader(data, batch, sampler=order, pin_memory=device != "cpu")
    mean, std = (
        torch.tensor(config.preprocess[k], device=device).view(1, 3, 1, 1) for k in ("mean", "std")
    )
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16)
    clip.train()
    running, bar = 0.0, tqdm(loader, initial=start, total=steps, mininterval=5, dynamic_ncols=True)
    for step, (images, tokens, facts, claims) in enumerate(bar, start=start):
        tokens = torch.searchsorted(ids, tokens).to(device)
        images = (images.to(device, torch.float32) - mean) / std
        for group in optim.param_groups:
            group["lr"] = learning_rate(step, settings)
        # The plain attention kernel is the faster one for 65 tokens on a CPU.
        with autocast, sdpa_kernel(SDPBackend.MATH):
            loss = batch_loss(clip, images, tokens, facts.to(device), claims.to(device))
        optim.zero_grad()
        loss.backward()
        if step < settings["single_steps"]:
            for name, parameter in clip.named_parameters():
                if not name.startswith("visual."):
                    parameter.grad = None
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optim.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=math.log(100))
        done = step + 1
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        if done % 100 == 0:
            logger.info(
                f"step {done}/{steps} loss {running:.4f} scale {clip.logit_scale.exp():.1f}"
            )
        if done % SAVE_INTERVAL == 0 or done in (steps, stop_at):
            state = dict(
                model=clip.state_dict(), optimizer=optim.state_dict(), step=done, plan=plan
            )
            with write_atomically(last) as part:
                torch.save(state, part)
        if done == stop_at and done < steps:
            return None

    path = work_dir / "shapes_clip.safetensors"
    save_file(shipped_state(clip, ids), path)
    path.chmod(0o644)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    logger.info(f"wrote {path}, {path.stat().st_size} bytes, sha256 {digest}")
    return path


def main() -> None:
    """Command line."""
    args = parse_args()
    torch.set_num_threads(1)  # so that it repeats
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options or {})
    train(config, args.work_dir, args.device or get_device())


if __name__ == "__main__":
    run(main)
