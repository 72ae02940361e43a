"""Convert a checkpoint of OTSeg's or ZegCLIP's released code for this package's configs.

Its tensors are renamed and tried on the model of a config, which says what is missing, unknown or
of another shape. The new file also holds the image tower, because the authors' position embedding
has the training resolution; it records that the class embedding counts twice, and with which mean
and standard deviation of the pixels the authors trained.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import configs_folder, load_config
from .options import add_cfg_options, new_parser

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor

# Tensors in the authors' checkpoints that do not affect the output: self-attention and its norm are
# never called, the criterion's class weights are never read, and only the attention map of the last
# decoder layer is used.
UNUSED = re.compile(
    r"text_encoder\."
    r"|decode_head\.loss_decode\."
    r"|decode_head\.decoder_1\.layers\.\d+\.(self_attn|norm1)\."
)
UNUSED_IN_LAST_LAYER = re.compile(r"multihead_attn\.(v|proj)\.|linear[12]\.|norm[23]\.")
LAYER = re.compile(r"decode_head\.decoder_1\.layers\.(\d+)\.(.+)\.(weight|bias)")
LAYER_PARTS = {
    "multihead_attn.q": "attention.query",
    "multihead_attn.k": "attention.key",
    "multihead_attn.v": "value",
    "multihead_attn.proj": "proj",
    "linear1": "feed_forward.0",
    "linear2": "feed_forward.3",
    "norm2": "norm1",
    "norm3": "norm2",
}
#: Beginnings of the authors' names and of this package's. The first layer's prompts come apart from
#: those of the others there; the rest of the backbone is CLIP.
PREFIXES = {
    "decode_head.q_proj.": "neck.descriptor.linear.",
    "backbone.prompt_proj.": "backbone.visual_prompts.proj.",
    "backbone.prompt_norm.": "backbone.visual_prompts.norm.",
    "backbone.prompt_embeddings": "backbone.visual_prompts.shallow",
    "backbone.deep_prompt_embeddings": "backbone.visual_prompts.deep",
    "backbone.": "backbone.clip.module.",
}
PIXELS = [[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]]  # the authors' mean and std
COCO_PROMPTS = 100  # prompt tokens of a layer in the authors' COCO-Stuff models; others have 10
METHODS = ("OTSeg", "ZegCLIP")


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("src", help="the authors' checkpoint")
    parser.add_argument(
        "dst",
        help="the checkpoint to write, for tools/test.py with configs/otseg or configs/zegclip",
    )
    parser.add_argument(
        "--config",
        help="config whose model the checkpoint must fit. Default: OTSeg's or ZegCLIP's of the "
        "papers, by what the file says",
    )
    add_cfg_options(parser)
    return parser.parse_args()


def convert(src: str | Path, dst: str | Path, config: Config | None = None) -> str:
    """Convert a checkpoint file; nothing in it is executed.

    Args:
        src: The authors' file: a dict with ``state_dict`` and ``meta``.
        dst: The file to write; its folder is created if missing.
        config: A config whose model the tensors must fit. None: that of the papers' model, by the
            training config inside the file (OTSeg where there is none) and the number of prompts.

    Returns:
        The method, ``"OTSeg"`` or ``"ZegCLIP"``.

    Raises:
        FileNotFoundError: If ``src`` does not exist.
        UserError: If ``src`` is not a checkpoint of the authors, if its tensors do not fit the
            model (the message names them), or if ``dst`` is ``src`` or a ``.safetensors`` file.
    """
    import torch
    from mmengine.config import Config
    from mmengine.logging import print_log

    from mmseg_otseg.engine.checkpoint import check_target, read_checkpoint
    from mmseg_otseg.errors import UserError
    from mmseg_otseg.files import write_atomically
    from mmseg_otseg.models.decode_heads import MPSADecoder, MultiHeadDecoder
    from mmseg_otseg.models.decode_heads.decoder import encode_kind

    source, target = Path(src).expanduser(), Path(dst).expanduser()
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"{dst} is the file to convert; choose another name for the result")
    target.parent.mkdir(parents=True, exist_ok=True)
    check_target(target)
    checkpoint = read_checkpoint(source, "cpu")
    state: Any = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    prompts = state.get("backbone.deep_prompt_embeddings") if isinstance(state, Mapping) else None
    if prompts is None or prompts.dim() != 3:
        raise UserError(
            f"{src} is not a checkpoint of OTSeg's or ZegCLIP's authors: it holds no `state_dict` "
            "with backbone.deep_prompt_embeddings"
        )
    meta = checkpoint.get("meta") or {}
    # The files of both methods have the same tensors; only the training configs inside differ.
    named = [m for m in METHODS if re.search(rf"type\s*=\s*['\"]{m}['\"]", str(meta.get("config")))]
    method = named[0] if len(named) == 1 else METHODS[0]
    if config is None:
        data = "cocostuff" if prompts.shape[1] == COCO_PROMPTS else "voc"
        config = Config.fromfile(configs_folder() / method.lower() / f"{data}_512.py")
    converted, dropped = convert_state_dict(state)
    converted["pixels"] = torch.tensor(PIXELS)
    if named:  # the other method's head refuses the file
        decoder = MPSADecoder if method == "OTSeg" else MultiHeadDecoder
        converted["decode_head.decoder.kind_name"] = encode_kind(decoder.kind)
    _check_fit(converted, config, str(src))
    kept: dict[str, Any] = {"converted_from": f"{' or '.join(named or METHODS)}, the authors' code"}
    if meta.get("CLASSES") is not None:
        kept["dataset_meta"] = {"classes": tuple(meta["CLASSES"]), "palette": meta.get("PALETTE")}
    with write_atomically(target) as part:
        torch.save({"state_dict": converted, "meta": kept}, part)
    print_log(
        f"{src} is a checkpoint of {kept['converted_from']}; {len(dropped)} of its {len(state)} "
        f"tensors do not affect the output and were dropped. Written to {target}",
        logger="current",
    )
    return method


def convert_state_dict(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename an authors' OTSeg or ZegCLIP state dict.

    Args:
        state: Names and tensors as the authors' code saves them.

    Returns:
        The state dict of an ``EncoderDecoder`` with ``CLIPBackbone``, ``DLFANeck`` and
        ``MPSAHead`` or ``ZegCLIPHead``, without the text embeddings, with the image tower, its
        fingerprint and activation, and the flag that makes the backbone count the class embedding
        twice; and the names of the dropped tensors, which do not affect the output.
    """
    import torch

    from mmseg_otseg.models.clip import tensors_fingerprint

    last = max((int(match[1]) for name in state if (match := LAYER.fullmatch(name))), default=-1)
    names = {name: _new_name(name, last) for name in state}
    converted = {new: state[name] for name, new in names.items() if new is not None}
    first = converted.pop("backbone.visual_prompts.shallow", None)
    others = converted.pop("backbone.visual_prompts.deep", None)
    if first is not None and others is not None and first.shape[1:] == others.shape[1:]:
        # One set of tokens for each layer; without them, loading says that they are missing.
        converted["backbone.visual_prompts.embeddings"] = torch.cat([first, others])
    clip = PREFIXES["backbone."]
    tower = {name.removeprefix(clip): t for name, t in converted.items() if name.startswith(clip)}
    converted["backbone.clip.fingerprint"] = tensors_fingerprint(tower)
    converted["backbone.clip.quick_gelu"] = torch.tensor(1, dtype=torch.uint8)  # OpenAI's CLIP
    converted["backbone.class_embedding_times"] = torch.tensor(2)
    return converted, [name for name, new in names.items() if new is None]


def _new_name(name: str, last: int) -> str | None:
    """This package's name of an authors' tensor; None if it does not affect the output.

    Args:
        name: The authors' name. An unknown one is kept.
        last: Index of the last decoder layer.
    """
    if UNUSED.match(name):
        return None
    if match := LAYER.fullmatch(name):
        layer, part, kind = int(match[1]), match[2], match[3]
        if layer == last and UNUSED_IN_LAST_LAYER.match(f"{part}."):
            return None
        if part not in LAYER_PARTS:
            return name
        new = LAYER_PARTS[part]
        if layer == last:
            return f"decode_head.decoder.last.{new.removeprefix('attention.')}.{kind}"
        return f"decode_head.decoder.layers.{layer}.{new}.{kind}"
    for old, new in PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _check_fit(state: Mapping[str, Tensor], config: Config, src: str) -> None:
    """Load the tensors into the model of a config.

    Raises:
        UserError: If tensors are missing, unknown or of another shape; the message names them.
    """
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from mmseg_otseg.errors import UserError
    from mmseg_otseg.models.segmentors import change_clip_config

    init_default_scope(config.get("default_scope", "mmseg"))
    change_clip_config(
        config.model, pretrained=None
    )  # the file brings the tower; no text is encoded
    logging.disable(logging.WARNING)  # it is right that these weights are not the model's
    try:
        MODELS.build(config.model).load_state_dict(dict(state), strict=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{src} does not fit the model of {config.filename or 'the config'}: {error}"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    args = parse_args()
    if not Path(args.src).expanduser().is_file():
        raise FileNotFoundError(f"the checkpoint {args.src} does not exist")
    config = None if args.config is None else load_config(args)
    from mmengine.logging import MMLogger

    MMLogger.get_instance("convert")
    convert(args.src, args.dst, config)
