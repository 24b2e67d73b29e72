"""SUPPORT2 (Knaus et al. 1995): 9,105 seriously ill patients, eleven blocks of what was measured of them.

Predicted is death within 180 days. What another model predicted (surv2m, surv6m), scores of the same study
(sps), and what was decided or asked later (dnr, sfdm2) stay out. Every knot is a clinical one, from reference
ranges and from what other scores cut at; nothing is computed from these patients. A block is missing where
none of its values was taken; the table's own missing values stay missing.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.features.encoding import scaled
from node.features.table import FeatureTable
from protocols.study import Study

WITHIN_DAYS = 180
KNOTS: dict[str, dict[str, list[float]]] = {
    "person": {"age": [20, 35, 45, 55, 65, 75, 85, 95], "edu": [0, 8, 12, 16, 20]},
    "history": {"num_co": [0, 1, 2, 3, 5]},
    "disease": {},
    "vitals": {
        "meanbp": [30, 50, 65, 80, 100, 120, 150],
        "hrt": [40, 60, 80, 100, 120, 140, 180],
        "resp": [5, 12, 16, 20, 24, 30, 40],
        "temp": [34, 36, 37, 38, 39, 40],
    },
    "coma": {"scoma": [0, 10, 30, 45, 60, 90, 100]},
    "blood-gas": {"pafi": [50, 100, 150, 200, 300, 400, 500], "ph": [7.0, 7.2, 7.3, 7.35, 7.4, 7.45, 7.55]},
    "labs": {
        "wblc": [0, 2, 4, 8, 12, 20, 40],
        "crea": [0.3, 0.7, 1.0, 1.5, 2, 3, 5, 8],
        "sod": [120, 130, 135, 140, 145, 155],
    },
    "liver": {"alb": [1, 2, 2.5, 3, 3.5, 4.5], "bili": [0, 0.5, 1, 2, 4, 8, 20]},
    "renal": {
        "glucose": [40, 70, 100, 140, 200, 300],
        "bun": [5, 10, 20, 30, 50, 80, 120],
        "urine": [0, 500, 1000, 1500, 2000, 3000, 5000],
    },
    "function": {"adlp": [0, 1, 2, 3, 5, 7], "adls": [0, 1, 2, 3, 5, 7]},
    "stay": {"hday": [1, 2, 4, 8, 16, 32, 60]},
}
LEVELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sex": ("person", ("male",)),
    "race": ("person", ("asian", "black", "hispanic", "other", "white")),
    "income": ("person", ("under $11k", "$11-$25k", "$25-$50k", ">$50k")),
    "diabetes": ("history", ("1",)),
    "dementia": ("history", ("1",)),
    "ca": ("history", ("metastatic", "no", "yes")),
    "dzgroup": (
        "disease",
        (
            "ARF/MOSF w/Sepsis",
            "CHF",
            "COPD",
            "Cirrhosis",
            "Colon Cancer",
            "Coma",
            "Lung Cancer",
            "MOSF w/Malig",
        ),
    ),
}
MISSING = ("", "NA", "missing")


def study_form(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return the form of a study over SUPPORT2; `sections` are added to those of the same name."""
    features = []
    for modality, values in KNOTS.items():
        for name, knots in values.items():
            features.append({"name": name, "kind": "value", "knots": knots, "missing_flag": True})
            features[-1] |= {"table": "measurement", "concept_id": 2_000_200_000 + len(features)}
            features[-1]["modality"] = modality
        for name, (where, levels) in LEVELS.items():
            if where == modality:
                features.append({"name": name, "kind": "category", "codes": list(range(1, len(levels) + 1))})
                features[-1] |= {"table": "observation", "concept_id": 2_000_200_000 + len(features)}
                features[-1]["modality"] = modality
    form: dict[str, Any] = {
        "study": {"name": "support2", "project": "benchmark", "model": "fusion", "hidden": [32]},
        "fusion": {"kind": "early", "modality_dropout": 0.15},
        "cohort": {"include": [{"kind": "age", "min_years": 0}]},
        "outcome": {"kind": "present", "table": "condition_occurrence", "concept_id": 1},
        "features": features,
        "privacy": {"epsilon": 3.0, "delta": 1e-5, "clip_norm": 1.0, "max_sites_per_patient": 1},
        "training": {
            "rounds": 1,
            "steps_per_round": 60,
            "learning_rate": 0.02,
            "momentum": 0.9,
            "optimizer": "adam",
            "expected_patients": 6_400,
            "train_fraction": 0.7,
        },
        "sites": {"minimum": 3, "tolerance": 1},
    }
    for name, changes in sections.items():
        form[name] = form[name] | changes
    return form


def patients(file: Path, study: Study) -> FeatureTable:
    """Return all patients as rows of the study, encoded by the node's own code."""
    with gzip.open(file, "rt", newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns: list[NDArray[Any]] = []
    seen: list[NDArray[np.bool_]] = []
    for feature in study.features:
        if feature.kind == "category":
            _, levels = LEVELS[feature.name]
            texts = np.array([row[f"fac_{feature.name}"] for row in rows])
            there = ~np.isin(texts, MISSING)
            values = [(texts == level).astype(np.float64) for level in levels]
        else:
            texts = [row[f"num_{feature.name}"] for row in rows]
            numbers = np.array([np.nan if text in MISSING else float(text) for text in texts])
            there, values = np.isfinite(numbers), scaled(feature, numbers)
        columns += values
        seen += [there] * len(values)
        if feature.missing_flag:
            columns.append((~there).astype(np.float64))
            seen.append(np.ones(len(rows), dtype=bool))
    died = np.array([row["event"] == "1" and float(row["time"]) <= WITHIN_DAYS for row in rows])
    x, mask = np.column_stack(columns).astype(np.float32), np.column_stack(seen)
    return FeatureTable(np.arange(len(rows)), x, mask, died.astype(np.float32))


def dropping(study: Study, table: FeatureTable, share: float, *, rng: np.random.Generator) -> FeatureTable:
    """Return the rows with this share of the modalities gone, at random."""
    mask = table.mask.copy()
    for modality in study.modalities:
        gone = rng.random(len(table)) < share
        mask[np.ix_(gone, list(modality.columns))] = False
    return FeatureTable(table.person_ids, table.x, mask, table.y)
