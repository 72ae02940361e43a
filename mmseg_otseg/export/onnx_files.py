"""A model as two functions on plain tensors, and the ONNX files and the tokenizer made of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from torch import Tensor, nn

from mmseg_otseg.errors import UserError
from mmseg_otseg.inference.exported import TEXT_ENCODER, TOKENIZER
from mmseg_otseg.models.decode_heads import SimilarityHead
from mmseg_otseg.models.text import LearnablePrompts, TemplatePrompts, TextTower

OPSET = 18  # version of the ONNX operators
# Contractions, runs of letters, single digits, and runs of anything else but white space. The
# expression of open_clip ignores case and so skips U+0345, an accent with a letter as its capital.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"


class SegmentationGraph(nn.Module):
    """Images and text embeddings in, probabilities out, or the cosines of a training-free model.

    Args:
        model: A segmentor of this package, in eval mode, on the CPU.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = model.backbone, model.neck, model.decode_head
        prepares = model.data_preprocessor
        # mmseg loads BGR, and a model that does not convert it was trained on BGR. The stacks name
        # the conversion differently.
        converts = ("channel_conversion", "_channel_conversion")
        self.flips = not any(getattr(prepares, name, False) for name in converts)
        self.register_buffer("mean", prepares.mean.clone(), persistent=False)
        self.register_buffer("std", prepares.std.clone(), persistent=False)

    def forward(self, image: Tensor, text: Tensor, seen_bias: Tensor) -> Tensor:
        """Segment images.

        Args:
            image: RGB values 0..255, shape (B, 3, h, w), uint8.
            text: Text embeddings of each name, shape (Q, N, D), unit length.
            seen_bias: What is subtracted from the probabilities of each name, shape (Q,).

        Returns:
            Probabilities less the bias, shape (B, Q, h, w); the largest one wins. For a
            ``SimilarityHead``, cosines without a bias.
        """
        rgb = image.flip(1) if self.flips else image
        features = self.backbone((rgb.to(self.mean.dtype) - self.mean) / self.std)
        aligned = self.neck.align(features, text)
        logits = self.head.predicting_map(self.head(aligned))
        size, corners = image.shape[-2:], self.head.align_corners
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=corners)
        if isinstance(self.head, SimilarityHead):
            return logits + 0 * seen_bias[:, None, None]  # what has no effect stays an input
        return logits.sigmoid() - seen_bias[:, None, None]


class TextGraph(nn.Module):
    """Tokens of a sentence in, its text embeddings out.

    Args:
        encoder: CLIP's text tower, or ZegOT's prompts, which put their contexts around the sentence
            (then a class name and a period).
    """

    def __init__(self, encoder: TextTower | LearnablePrompts) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        copied = self.encoder
        tower = copied if isinstance(copied, TextTower) else copied.text_tower
        # One place more than sentences fill: torch.export fixes the length of a slice that can be
        # the whole.
        position = F.pad(tower.positional_embedding, (0, 0, 0, 1))
        tower.positional_embedding = nn.Parameter(position, requires_grad=False)
        if tower.attn_mask is not None:
            tower.attn_mask = F.pad(tower.attn_mask, (0, 1, 0, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode sentences.

        Args:
            tokens: Start token, words, end token, then zeros; shape (n, T), int64.

        Returns:
            Embeddings of unit length, shape (n, N, D): one for each context, or N = 1 without.
        """
        if isinstance(self.encoder, LearnablePrompts):
            return self.encoder.encode_tokens(tokens)
        return self.encoder(tokens)[:, None]


def write_graph(model: Any, path: Path, size: tuple[int, int] | None) -> None:
    """Write the segmenter.

    Args:
        model: As for :class:`SegmentationGraph`.
        path: The ONNX file to write.
        size: Rows and columns that images must have; None takes any multiples of the patch, at
            least two patches a side.
    """
    prompts, patch = model.neck.text, model.backbone.patch_size
    batch, classes = torch.export.Dim("batch"), torch.export.Dim("classes")
    image: dict[int, Any] = {0: batch}
    if size is None:
        image[2] = patch[0] * torch.export.Dim("rows", min=2)
        image[3] = patch[1] * torch.export.Dim("columns", min=2)
    shapes = {"image": image, "text": {0: classes}, "seen_bias": {0: classes}}
    example = (  # sized so that no axis can be mistaken for another
        torch.zeros(2, 3, *(size or (5 * patch[0], 6 * patch[1])), dtype=torch.uint8),
        F.normalize(torch.randn(3, prompts.num_prompts, prompts.embed_dim), dim=-1),
        torch.zeros(3),
    )
    _export(SegmentationGraph(model).eval(), example, shapes, "probabilities", path)


def write_text_encoder(text: Any, folder: Path) -> dict[str, Any] | None:
    """Write text encoder and tokenizer.

    Returns:
        How a class name becomes sentences; None if the model takes no new names.
    """
    encoder: Any
    if isinstance(text, LearnablePrompts):
        encoder, tower, templates, average = text, text.text_tower, ["{}."], False
    elif isinstance(text, TemplatePrompts) and text.sentences is None:
        encoder = tower = text.build_tower()
        templates, average = list(text.templates), text.average
    else:
        return None
    graph = TextGraph(encoder).eval()
    tokens = tower.tokenize(["a word.", "some more words."])
    longest = len(tower.positional_embedding)
    if isinstance(text, LearnablePrompts):
        longest -= text.num_tokens
    number, length = torch.export.Dim("n"), torch.export.Dim("length", max=longest)
    # A tower that is not causal attends to its padding, so its input always has the full length.
    padded = tower.attn_mask is None or tower.pools_last
    longest = tokens.shape[1] if padded else longest
    shapes = {"tokens": {0: number} if padded else {0: number, 1: length}}
    _export(graph, (tokens,), shapes, "embeddings", folder / TEXT_ENCODER)
    fast = fast_tokenizer(tower.tokenizer)
    fast.enable_truncation(longest)
    fast.save(str(folder / TOKENIZER))
    return {
        "templates": templates,
        "average": average,
        "clean": cleaning(tower.tokenizer),
        "max_tokens": longest,
        "padded_with": int(tokens[0, -1]) if padded else None,
    }


def _export(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    shapes: dict[str, Any],
    output: str,
    path: Path,
) -> None:
    try:
        exported = torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
        onnx = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(shapes),
            output_names=[output],
            verbose=False,
        )
        assert onnx is not None
        onnx.save(str(path))
    except Exception as error:  # torch raises many kinds when it cannot write something
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"torch cannot write this model as {path.name} ({reason}). If that is about sizes, "
            "fix them (--height, --width)."
        ) from error


def quantize(path: Path) -> None:
    """Round the weights of a file's matrix products to 8 bits; activations are rounded at run time.

    Only 7 of the 8 bits are used, because sums could overflow otherwise on CPUs without VNNI.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    rounded = path.with_suffix(".int8")
    quantize_dynamic(
        path,
        rounded,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    rounded.replace(path)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # weights of a large model


def cleaning(tokenizer: Any) -> str:
    """How a tokenizer of open_clip cleans text, by open_clip's name for it."""
    names = ("whitespace", "lower", "canonicalize")
    return next(name for name in names if get_clean_fn(name) is tokenizer.clean_fn)


def fast_tokenizer(tokenizer: Any) -> Any:
    """A ``tokenizers.Tokenizer`` that gives the same tokens as a tokenizer of open_clip.

    Both are equal for text that was cleaned as the tokenizer's ``clean_fn`` does it. A tokenizer of
    an unknown type raises UserError.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    if isinstance(tokenizer, HFTokenizer):
        return Tokenizer.from_str(tokenizer.tokenizer.backend_tokenizer.to_str())
    if not isinstance(tokenizer, SimpleTokenizer):
        raise UserError(f"cannot export a tokenizer of the type {type(tokenizer).__name__}")
    start, end = ((name, tokenizer.encoder[name]) for name in ("<start_of_text>", "<end_of_text>"))
    fast = Tokenizer(
        models.BPE(
            vocab=tokenizer.encoder,
            merges=sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__),
            end_of_word_suffix="</w>",
            unk_token=end[0],
        )
    )
    fast.add_special_tokens([start[0], end[0]])
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.post_processor = processors.TemplateProcessing(
        single=f"{start[0]} $A {end[0]}", special_tokens=[start, end]
    )
    fast.enable_truncation(tokenizer.context_length)
    return fast
