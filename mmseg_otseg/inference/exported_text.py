"""From class names to text embeddings, by an exported text encoder."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import palette_for
from mmseg_otseg.inference.exported_files import TEXT_ENCODER, TOKENIZER, VOCABULARY
from mmseg_otseg.inference.exported_session import Session

BATCH = 256


class Vocabulary(NamedTuple):
    """What an exported model needs to know of its classes.

    Attributes:
        names: The K class names.
        text: Their text embeddings, shape (K, N, D), float32, unit length.
        seen: Whether each class had labels in training, shape (K,), bool.
        palette: Their colors, RGB.
    """

    names: tuple[str, ...]
    text: np.ndarray
    seen: np.ndarray
    palette: list[list[int]]


def read_vocabulary(path: str | Path, clip: str) -> Vocabulary:
    """Read the vocabulary that was exported with a model.

    Args:
        path: A ``vocabulary.npz``.
        clip: Fingerprint of the model's CLIP.

    Raises:
        UserError: If it belongs to another CLIP, or is damaged.
    """
    try:
        with ZipFile(path) as archive:  # numpy.savez compresses nothing
            if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
                raise UserError("it is compressed")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("names", "text", "seen", "palette", "clip")}
        _check_arrays(**arrays)
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(f"{path} cannot be read as a vocabulary ({error})") from error
    if str(arrays["clip"]) != clip:
        raise UserError(
            f"{path} was made with another CLIP (fingerprint {str(arrays['clip'])[:12]}) than the "
            f"model (fingerprint {clip[:12]}): text and images would not match. Export it again."
        )
    names = tuple(str(name) for name in arrays["names"])
    return Vocabulary(
        names,
        arrays["text"].astype(np.float32),
        arrays["seen"].astype(bool),
        arrays["palette"].tolist(),
    )


def _check_arrays(
    names: np.ndarray, text: np.ndarray, seen: np.ndarray, palette: np.ndarray, clip: np.ndarray
) -> None:
    """Check that the arrays of a vocabulary belong to the same K classes."""
    number = names.shape[:1]
    if names.ndim != 1 or names.dtype.kind != "U" or not names.size:
        raise UserError("its names are not a list of names")
    if not all(name.isprintable() for name in names.tolist()):
        raise UserError("its names hold characters that cannot be printed")
    if len(set(names.tolist())) < len(names):
        raise UserError("its names are not all different")
    if text.ndim != 3 or text.shape[:1] != number or text.dtype.kind != "f" or not text.size:
        raise UserError(f"its text is not an array of shape (K, N, D) for {len(names)} names")
    if not np.isfinite(text).all():
        raise UserError("its text is not finite")
    if seen.shape != number or palette.shape != (*number, 3) or palette.dtype != np.uint8:
        raise UserError(f"its seen classes or its palette are not those of {len(names)} names")


class TextEncoder:
    """Encodes class names as the exported model's prompts do.

    Args:
        folder: The exported folder.
        known: Its vocabulary; classes in it keep their colors, and the seen ones remain seen.
        prompts: ``templates``, ``average``, ``max_tokens`` and ``padded_with`` of the folder's
            metadata.
        threads: Threads to run on; None is all cores.

    Raises:
        FileNotFoundError: If a file is not there.
        UserError: If a file is damaged.
    """

    def __init__(
        self, folder: Path, known: Vocabulary, prompts: dict[str, Any], threads: int | None
    ) -> None:
        from tokenizers import Tokenizer

        self.folder, self.known, self.prompts = folder, known, prompts
        for name in (TOKENIZER, TEXT_ENCODER):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} has no {name}, so it takes no new class names")
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            self.tokenizer.no_truncation()
        except Exception as error:  # its errors have no class of their own
            raise UserError(f"{folder / TOKENIZER} is not a tokenizer ({error})") from error
        self.session = Session(folder / TEXT_ENCODER, ("tokens",), "embeddings", threads)

    def __call__(self, names: Sequence[str]) -> Vocabulary:
        """Encode names.

        Raises:
            UserError: If there is no name, or one is empty, given twice, or too long; or if the
                text encoder does not belong to the vocabulary.
        """
        names = tuple(names)
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise UserError(f"class names must be one or more strings that are not empty: {names}")
        if len(set(names)) < len(names):
            doubled = sorted({name for name in names if names.count(name) > 1})
            raise UserError(f"the class names {', '.join(doubled)} are given more than once")
        sentences = [
            # Not format(): a template comes from a file, and could ask for more than the name.
            template.replace("{}", name)
            for name in names
            for template in self.prompts["templates"]
        ]
        embeddings = self._encode(sentences)
        text = embeddings.reshape(len(names), -1, embeddings.shape[-1])
        if self.prompts["average"]:
            text = text.mean(1, keepdims=True)
            text /= np.linalg.norm(text, axis=-1, keepdims=True)
        prompts, width = self.known.text.shape[1:]
        if text.shape[1:] != (prompts, width):
            raise UserError(
                f"{self.session.path} makes embeddings of the shape {text.shape[1:]} for a name, "
                f"but those of {VOCABULARY} have ({prompts}, {width}): the files do not belong "
                "together. Export the model again."
            )
        seen_names = {name for name, seen in zip(self.known.names, self.known.seen) if seen}
        seen = np.array([name in seen_names for name in names])
        known = {"classes": self.known.names, "palette": self.known.palette}
        return Vocabulary(names, text, seen, palette_for(names, known))

    def _encode(self, sentences: list[str]) -> np.ndarray:
        """Embeddings (n, N, D) of sentences."""
        clean = [html.unescape(html.unescape(sentence)) for sentence in sentences]
        try:
            rows = [encoding.ids for encoding in self.tokenizer.encode_batch(clean)]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in it does not raise an Exception
            raise UserError(f"{self.folder / TOKENIZER} cannot read names ({error})") from error
        longest = max(rows, key=len)
        if len(longest) > self.prompts["max_tokens"]:
            raise UserError(
                f"the prompt {sentences[rows.index(longest)]!r:.200} has {len(longest)} tokens, "
                f"the text encoder takes {self.prompts['max_tokens']}: use a shorter name"
            )
        chunks = []
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            width, padding = max(map(len, chunk)), self.prompts["padded_with"]
            if padding is not None:
                width = self.prompts["max_tokens"]
            tokens = np.full((len(chunk), width), padding or 0, np.int64)
            for row, ids in zip(tokens, chunk):
                row[: len(ids)] = ids
            chunks.append(self.session(tokens=tokens))
        return np.concatenate(chunks)
