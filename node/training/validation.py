"""A look at the model at one site: what its validation patients add to the fleet's sum, and what stays here.

Guarantee: one patient more or less changes `Looked.added` by one row, whose L2 norm is at most
`privacy.validation.patient_norm`, whatever the model is. What `Looked.figures` says is exact, and for the
hospital's own eyes: it has no noise and must not leave.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from node.features.splitting import in_training, in_validation
from node.features.table import FeatureTable
from node.training.losses import losses
from node.training.models import outputs
from privacy import private_files, validation
from privacy.validation import Metric
from protocols.study import Study

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A study's patients at this site: those it is trained on, those it is tried on meanwhile, how many."""

    training: FeatureTable
    validation: FeatureTable
    patients: int

    @classmethod
    def of(cls, study: Study, table: FeatureTable, *, key: bytes) -> Split:
        """Return the parts by the node's own key. Raises: ValueError for a short key."""
        first = study.training.train_fraction
        chosen = in_training(table.person_ids, key=key, fraction=first)
        tried = np.zeros(len(table), dtype=bool)
        if study.validation is not None:
            tried = in_validation(table.person_ids, key=key, after=first, fraction=study.validation.fraction)
        return cls(table.rows(chosen), table.rows(tried), len(table))


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What a look at a model found here.

    Args:
        added: what each patient of the study adds to the fleet's sum [patients, validation.vector_length].
        figures: this site's own exact figures on its validation patients. They must not leave the site.
    """

    added: Vector
    figures: Mapping[str, float]


def looked(study: Study, params: Vector, split: Split, *, own: Vector | None = None) -> Looked:
    """Try the model on this site's validation patients, once."""
    each, right = judged(study, params, split.validation, own=own)
    added = validation.rows(study, each, right, others=split.patients - len(split.validation))
    return Looked(added, _figures(each, right))


def judged(
    study: Study, params: Vector, table: FeatureTable, *, own: Vector | None = None
) -> tuple[Vector, NDArray[np.bool_] | None]:
    """Return each patient's loss, unbounded, and whether the prediction is right (None: no classes)."""
    out = outputs(study, params, table, own=own)
    y = torch.from_numpy(table.y).double()
    each = losses(study.outcome, torch.from_numpy(out)[:, None, :], y)[:, 0].numpy()
    if not validation.has_classes(study):
        return each, None
    said = out.argmax(axis=1) if study.outcome.task == "multiclass" else (out[:, 0] > 0.0)
    return each, said == table.y.astype(np.int64)


def _figures(each: Vector, right: NDArray[np.bool_] | None) -> Mapping[str, float]:
    found: dict[str, float] = {"patients": len(each)}
    if len(each):
        found["loss"] = float(np.nan_to_num(each).mean())
        if right is not None:
            found["accuracy"] = float(right.mean())
    return found


@dataclass(frozen=True, slots=True)
class LocalFigures:
    """The files that keep what looks said, 0600, a line for each: here, exactly, and of the fleet, noisy."""

    folder: Path

    def add(self, study: Study, here: Mapping[str, float], fleet: Iterable[Metric], *, round: int) -> None:
        """Append what a look said."""
        private_files.make_folder(self.folder)
        line = {"round": round, "here": dict(here), "fleet": [metric.to_json() for metric in fleet]}
        handle = os.open(self._file(study), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab") as stream:
            stream.write(json.dumps(line).encode() + b"\n")

    def lines(self, study: Study) -> list[dict[str, Any]]:
        """Return what the looks said, oldest first; none if the plan was never tried here."""
        try:
            found = self._file(study).read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in found]

    def fleet(self, study: Study) -> tuple[Metric, ...]:
        """Return the noisy figures of the whole fleet."""
        return tuple(Metric(**metric) for line in self.lines(study) for metric in line["fleet"])

    def _file(self, study: Study) -> Path:
        return self.folder / f"{study.plan_hash().hex()}.jsonl"
