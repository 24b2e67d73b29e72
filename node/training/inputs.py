"""What goes into a model for each patient: which modalities are there, and which of these a step hides.

Guarantee: what is hidden of a patient in a step follows from their id and the step's public parameters alone.
One patient more or less changes nothing for the others, and the same step hides the same at every try.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from protocols.study import Study

Bools = NDArray[np.bool_]
Words = NDArray[np.uint64]


def presence(study: Study, table: FeatureTable) -> Bools:
    """Return [persons, modalities]: a modality is there if any of its columns was observed."""
    return np.column_stack([table.mask[:, list(m.observed_by)].any(axis=1) for m in study.modalities])


def views(study: Study, present: Bools, person_ids: NDArray[np.int64], params: NDArray[np.float64]) -> Bools:
    """Return [persons, views, modalities]: what a step at `params` sees of each patient.

    With several views, the first hides nothing.
    """
    if study.fusion is None or not study.fusion.modality_dropout:
        return present[:, None, :]
    count, modalities = study.fusion.views, present.shape[1]
    seed = hashlib.sha256(b"fedtwin modality dropout" + np.ascontiguousarray(params, dtype="<f8").tobytes())
    cells = np.arange(count * modalities, dtype=np.uint64).reshape(count, modalities)
    mixed = _mixed(person_ids.astype(np.uint64) ^ np.uint64(int.from_bytes(seed.digest()[:8], "big")))
    drawn = _mixed(mixed[:, None, None] ^ _mixed(cells + np.uint64(1))[None])
    keep = (drawn >> np.uint64(11)).astype(np.float64) >= study.fusion.modality_dropout * 2.0**53
    if count > 1:
        keep[:, 0] = True
    seen: Bools = present[:, None, :] & keep
    blank = ~seen.any(axis=2, keepdims=True)
    return np.where(blank, present[:, None, :], seen)


def _mixed(words: Words) -> Words:
    """Return words that look random, one per word (the finalizer of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
