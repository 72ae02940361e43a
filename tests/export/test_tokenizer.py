from __future__ import annotations

import open_clip
import pytest
from open_clip.tokenizer import get_clean_fn

from mmseg_otseg.errors import UserError
from mmseg_otseg.export.onnx_files import cleaning, fast_tokenizer
from mmseg_otseg.inference.exported import clean_text

pytest.importorskip("tokenizers")
SENTENCES = (
    "a photo of a cat.",
    "A  Photo of\ta traffic-light, isn't it?",
    "potted plant",
    "3 dining tables (2021)",
    "smörgåsbord café naïve",
    "猫と犬 кошка",
    "it's the dog's 100% new! tv/monitor...",
    "x" * 60,
    "\u201ccurly\u201d quotes, \u2018it\u2019s\u2019",
    "\ufb01re \uff23\uff21\uff34",  # a ligature, and letters of full width
    "cat &amp;amp; dog",
    "\u0130stanbul \u1e9e e\u0301 \u200bwide\u2003space",
    "\u00bd \u216b \u0663 \U0001f469\u200d\U0001f467 \u0345 '\u017f",
    "<end_of_text> cat",
)


def test_it_gives_the_tokens_of_open_clip() -> None:
    slow = open_clip.get_tokenizer("ViT-B-16")
    fast = fast_tokenizer(slow)
    for sentence in SENTENCES:
        expected = [slow.sot_token_id, *slow.encode(sentence), slow.eot_token_id]
        assert fast.encode(clean_text(sentence, cleaning(slow))).ids == expected, sentence


@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
def test_text_is_cleaned_as_by_open_clip(clean: str) -> None:
    for sentence in (*SENTENCES, "a_b, C-d!  (e)"):
        assert clean_text(sentence, clean) == get_clean_fn(clean)(sentence)


def test_a_sentence_that_is_too_long_keeps_its_end_token() -> None:
    slow = open_clip.get_tokenizer("ViT-B-16")
    ids = fast_tokenizer(slow).encode("dog " * 200).ids
    assert len(ids) == slow.context_length
    assert ids == slow(["dog " * 200])[0].tolist()


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(UserError, match="str"):
        fast_tokenizer("bpe")
