"""Names of the files in an exported folder."""

from __future__ import annotations

FORMAT = 1
"""Version of the layout; a reader refuses one that it does not know."""

MODEL = "model.onnx"
TEXT_ENCODER = "text_encoder.onnx"
TOKENIZER = "tokenizer.json"
VOCABULARY = "vocabulary.npz"
METADATA = "model.json"
