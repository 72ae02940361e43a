from __future__ import annotations

import open_clip
import pytest

from mmseg_otseg.export.tokenizer import fast_tokenizer

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
)


def test_it_gives_the_tokens_of_open_clip() -> None:
    slow = open_clip.get_tokenizer("ViT-B-16")
    fast = fast_tokenizer(slow)
    for sentence in SENTENCES:
        row = slow([sentence])[0]
        expected = row[: int(row.argmax()) + 1].tolist()
        assert fast.encode(sentence).ids == expected, sentence


def test_a_sentence_that_is_too_long_keeps_its_end_token() -> None:
    slow = open_clip.get_tokenizer("ViT-B-16")
    ids = fast_tokenizer(slow).encode("dog " * 200).ids
    assert len(ids) == slow.context_length
    assert ids == slow(["dog " * 200])[0].tolist()


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(TypeError, match="str"):
        fast_tokenizer("bpe")
