"""CLIP's tokenizer as a file of the ``tokenizers`` library."""

from __future__ import annotations

from typing import Any

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn

from mmseg_otseg.errors import UserError

# Contractions, runs of letters, single digits, and runs of anything else but white space. The
# expression of open_clip ignores case and so skips U+0345, an accent with a letter as its capital.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"


def cleaning(tokenizer: Any) -> str:
    """How a tokenizer of open_clip cleans text, by open_clip's name for it."""
    names = ("whitespace", "lower", "canonicalize")
    return next(name for name in names if get_clean_fn(name) is tokenizer.clean_fn)


def fast_tokenizer(tokenizer: Any) -> Any:
    """A ``tokenizers.Tokenizer`` that gives the same tokens as a tokenizer of open_clip.

    Both are equal for text that was cleaned as the tokenizer's ``clean_fn`` does it.

    Args:
        tokenizer: ``SimpleTokenizer`` or ``HFTokenizer``.

    Raises:
        UserError: If it is neither.
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
