"""The files of an exported folder, read without torch."""

from __future__ import annotations

import html
import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import names_of, palette_for

FORMAT = 2
"""Version of the layout; a reader refuses any other."""
MODEL = "model.onnx"
TEXT_ENCODER = "text_encoder.onnx"
TOKENIZER = "tokenizer.json"
VOCABULARY = "vocabulary.npz"
METADATA = "model.json"

MIN_ONNXRUNTIME = (1, 20)
# Not taken unless asked for: one compiles the model for every new size, the other is a service.
SKIPPED_PROVIDERS = ("TensorrtExecutionProvider", "AzureExecutionProvider")
SENTENCES_AT_ONCE = 256


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read what an exported folder says about its model.

    Raises:
        FileNotFoundError: If it is no exported folder.
        UserError: If its layout is another one.
    """
    path = folder / METADATA
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no exported model, which has a {METADATA}: tools/export.py writes one"
        )
    metadata = json.loads(path.read_text(encoding="utf-8"))
    if metadata["format"] != FORMAT:
        raise UserError(
            f"{path} has the layout {metadata['format']}, this version of mmseg_otseg reads "
            f"{FORMAT}: export the model again, or install the version that wrote it"
        )
    return metadata


class Session:
    """A model file in ONNX Runtime.

    Args:
        path: An ``.onnx`` file.
        output: Name of the output to compute.
        threads: Threads to run on; None is all cores.
        providers: ONNX Runtime's execution providers in order of preference; None is all that the
            installed package offers, but ``SKIPPED_PROVIDERS``.

    Raises:
        ImportError: If ONNX Runtime is missing or too old.
        UserError: If a provider is not installed.
    """

    def __init__(
        self, path: Path, output: str, threads: int | None, providers: Sequence[str] | None
    ) -> None:
        import onnxruntime

        if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < MIN_ONNXRUNTIME:
            needed = ".".join(map(str, MIN_ONNXRUNTIME))
            raise ImportError(
                f"exported models need onnxruntime {needed} or later, here is "
                f"{onnxruntime.__version__}: pip install --upgrade onnxruntime"
            )
        offered = onnxruntime.get_available_providers()
        if missing := set(providers or ()) - set(offered):
            raise UserError(
                f"the installed onnxruntime has no {', '.join(sorted(missing))}, but "
                f"{', '.join(offered)}"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it prints errors that it raises too
        options.intra_op_num_threads = threads or 0
        self.path, self.output = path, output
        chosen = providers or [name for name in offered if name not in SKIPPED_PROVIDERS]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=list(chosen))
        except Exception as error:  # onnxruntime has a class of its own for each kind
            raise UserError(
                f"{path} cannot be loaded; copy the whole folder again, or export anew: {error}"
            ) from error

    def __call__(self, **inputs: np.ndarray) -> np.ndarray:
        """Run the model.

        Raises:
            UserError: If its values are not finite.
        """
        values: np.ndarray = self._session.run([self.output], inputs)[0]
        if not np.isfinite(values).all():
            raise UserError(f"the values of {self.path} are not finite: it may be damaged")
        return values


class Vocabulary(NamedTuple):
    """What an exported model needs to know of its classes.

    Attributes:
        joined_names: The names of each of K classes in one string, ``"sofa | couch"``.
        text: Text embeddings of all Q names, shape (Q, N, D), float32, unit length.
        seen: Whether each class had labels in training, shape (K,), bool.
        palette: Their colors, RGB.
    """

    joined_names: tuple[str, ...]
    text: np.ndarray
    seen: np.ndarray
    palette: list[list[int]]

    @property
    def names(self) -> tuple[str, ...]:
        """The first name of each class."""
        return tuple(names_of(entry)[0] for entry in self.joined_names)

    @property
    def names_per_class(self) -> list[int]:
        """How many names each class has."""
        return [len(names_of(entry)) for entry in self.joined_names]


def read_vocabulary(path: Path, clip: str) -> Vocabulary:
    """Read the vocabulary that was exported with a model.

    Args:
        path: A ``vocabulary.npz``.
        clip: Fingerprint of the model's CLIP.

    Raises:
        UserError: If it belongs to another CLIP.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if str(arrays["clip"]) != clip:
        raise UserError(
            f"{path} was made with another CLIP (fingerprint {str(arrays['clip'])[:12]}) than the "
            f"model (fingerprint {clip[:12]}): text and images would not match. Export it again."
        )
    names = tuple(arrays["names"].tolist())
    return Vocabulary(names, arrays["text"], arrays["seen"], arrays["palette"].tolist())


class TextEncoder:
    """Encodes class names as the exported model's prompts do.

    Args:
        folder: The exported folder.
        known: Its vocabulary; classes in it keep their colors, and the seen ones remain seen.
        prompts: ``templates``, ``average``, ``clean``, ``max_tokens`` and ``padded_with`` of the
            folder's metadata.
        threads, providers: As in :class:`Session`.
    """

    def __init__(
        self,
        folder: Path,
        known: Vocabulary,
        prompts: dict[str, Any],
        threads: int | None,
        providers: Sequence[str] | None,
    ) -> None:
        from tokenizers import Tokenizer

        self.known, self.prompts = known, prompts
        self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.tokenizer.no_truncation()
        self.session = Session(folder / TEXT_ENCODER, "embeddings", threads, providers)

    def __call__(self, joined_names: Sequence[str]) -> Vocabulary:
        """Encode classes, each a name or several, as in ``Vocabulary.joined_names``.

        Raises:
            UserError: If a name is too long.
        """
        templates = self.prompts["templates"]
        texts = [name for entry in joined_names for name in names_of(entry)]
        text = self._encode(
            [template.replace("{}", name) for name in texts for template in templates]
        )
        text = text.reshape(len(texts), -1, text.shape[-1])
        if self.prompts["average"]:
            text = text.mean(1, keepdims=True)
            text /= np.linalg.norm(text, axis=-1, keepdims=True)
        seen_names = {name for name, seen in zip(self.known.names, self.known.seen) if seen}
        names = [names_of(entry)[0] for entry in joined_names]
        seen = np.array([name in seen_names for name in names])
        known = {"classes": self.known.names, "palette": self.known.palette}
        return Vocabulary(tuple(joined_names), text, seen, palette_for(names, known))

    def _encode(self, sentences: list[str]) -> np.ndarray:
        """Embeddings (n, N, D) of sentences."""
        clean = self.prompts["clean"]
        rows = [self.tokenizer.encode(clean_text(sentence, clean)).ids for sentence in sentences]
        longest = max(rows, key=len)
        if len(longest) > self.prompts["max_tokens"]:
            raise UserError(
                f"the prompt {sentences[rows.index(longest)]!r:.200} has {len(longest)} tokens, "
                f"the text encoder takes {self.prompts['max_tokens']}: use a shorter name"
            )
        chunks = []
        for start in range(0, len(rows), SENTENCES_AT_ONCE):
            chunk = rows[start : start + SENTENCES_AT_ONCE]
            width, padding = max(map(len, chunk)), self.prompts["padded_with"]
            if padding is not None:
                width = self.prompts["max_tokens"]
            tokens = np.full((len(chunk), width), padding or 0, np.int64)
            for row, ids in zip(tokens, chunk):
                row[: len(ids)] = ids
            chunks.append(self.session(tokens=tokens))
        return np.concatenate(chunks)


def clean_text(text: str, clean: str) -> str:
    """Text as open_clip's tokenizers clean it before they split it.

    Args:
        text: A sentence.
        clean: ``"whitespace"``, ``"lower"`` or ``"canonicalize"``, as open_clip calls it.
    """
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if clean == "canonicalize":
        text = text.strip().replace("_", " ")
        text = text.translate(str.maketrans("", "", string.punctuation))
    text = " ".join(text.split())
    return text if clean == "whitespace" else text.lower()
