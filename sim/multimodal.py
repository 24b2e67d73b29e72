"""Hospitals that do not exist, with seven kinds of data per patient and the best possible AUC known.

How an outcome y shows: every column of a modality is y·effect + frailty·loading + noise, all Gaussian, so the
modalities are related even among patients of one outcome. Two columns, one of genomics and one of labs, say
something only together: their correlation is +ρ in cases and -ρ in controls, each alone is pure noise. And
being measured says something: a modality is ordered more often for the sick.

So the odds of y given just what is there of a patient have a closed form (`Consortium.bayes_logits`), for
each of the 128 patterns of missing modalities, and no model whatever can rank patients better on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from protocols.study import Study

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PREVALENCE = 0.3
PUBLIC_RANGE = (-4.0, 4.0)  # a standard deviation is about 1; what lies outside is clipped
INTERACTION = 0.45  # ρ: worth about .04 of AUC where both columns are there


@dataclass(frozen=True, slots=True)
class Kind:
    """One modality.

    Args:
        columns: how many numbers it has, of which the first `telling` differ between outcomes.
        separation: distance of the two outcomes' means in standard deviations of the noise.
        loading: of frailty, on each telling column.
        available: share of patients who have it, at a hospital that offers it.
        ordered: how much higher the log odds of having it are for patients with the outcome.
    """

    name: str
    columns: int
    telling: int
    separation: float
    loading: float
    available: float
    ordered: float


KINDS = (
    Kind("ehr", 24, 8, 0.62, 0.12, 0.98, 0.0),
    Kind("claims", 12, 4, 0.40, 0.15, 0.85, 0.0),
    Kind("labs", 16, 6, 0.66, 0.10, 0.85, 0.4),
    Kind("imaging", 16, 6, 0.60, 0.05, 0.45, 0.6),
    Kind("genomics", 8, 4, 0.38, 0.0, 0.35, 0.0),
    Kind("wearables", 12, 5, 0.48, 0.10, 0.30, -0.3),
    Kind("notes", 16, 6, 0.55, 0.08, 0.75, 0.2),
)
PAIR = ("genomics", "labs")  # whose last columns say something together
NOT_OFFERED = 0.15  # chance that a hospital has no imaging, genomics or wearables at all
RARE = ("imaging", "genomics", "wearables")


@dataclass(frozen=True, slots=True, eq=False)
class Patients:
    """One hospital's patients: `values` in standard deviations, `present` and `offered` per modality."""

    values: Floats
    present: Bools
    offered: Bools
    y: Bools

    def table(self, *, first_id: int = 0) -> FeatureTable:
        """Return the rows as a node's features would have them, on PUBLIC_RANGE."""
        seen = self.present[:, _owner()]
        low, high = PUBLIC_RANGE
        x = np.where(seen, np.clip(2.0 * (self.values - low) / (high - low) - 1.0, -1.0, 1.0), 0.0)
        ids = np.arange(first_id, first_id + len(self.y), dtype=np.int64)
        return FeatureTable(ids, x.astype(np.float32), seen, self.y.astype(np.float32))

    def dropping(self, share: float, *, rng: np.random.Generator) -> Patients:
        """Return the same patients with this share of what is there gone, at random; one modality stays."""
        keep = self.present & (rng.random(self.present.shape) >= share)
        keep |= self.present & ~keep.any(axis=1, keepdims=True) & _first(self.present)
        return Patients(self.values, keep, self.offered, self.y)


def hospitals(*, seed: int, sites: int, patients: int) -> tuple[Patients, ...]:
    """Return `sites` hospitals with `patients` in all, of uneven sizes. The same seed gives the same ones."""
    streams = np.random.SeedSequence(seed).spawn(sites + 1)
    uneven = np.random.default_rng(streams[0]).uniform(0.5, 1.5, sites)
    sizes = np.floor(patients * uneven / uneven.sum()).astype(int)
    sizes[0] += patients - sizes.sum()
    return tuple(
        _patients(int(size), rng=np.random.default_rng(stream))
        for size, stream in zip(sizes, streams[1:], strict=True)
    )


def _patients(size: int, *, rng: np.random.Generator) -> Patients:
    y = rng.random(size) < PREVALENCE
    frailty = rng.normal(size=size)
    values = rng.normal(size=(size, len(_owner())))
    values += y[:, None] * _effects() + frailty[:, None] * _loadings()
    first, second = _pair()
    rho = np.where(y, INTERACTION, -INTERACTION)
    values[:, first] = rho * values[:, second] + np.sqrt(1.0 - rho**2) * rng.normal(size=size)
    offered = np.array([k.name not in RARE or rng.random() >= NOT_OFFERED for k in KINDS])
    tilt = rng.normal(0.0, 0.3, len(KINDS))  # of this hospital: it orders more of one thing, less of another
    present = (rng.random((size, len(KINDS))) < _ordering(y, tilt)) & offered
    present |= ~present.any(axis=1, keepdims=True) & _first(np.broadcast_to(offered, present.shape))
    return Patients(values, present, offered, y)


def bayes_logits(patients: Patients) -> Floats:
    """Return the log odds of the outcome given which values are there, the best there is to rank patients by.

    Which modalities are there counts with the share that all hospitals order on average: a hospital's own
    habits are nothing that a model of all hospitals could know.
    """
    seen = patients.present[:, _owner()].astype(np.float64)
    effects, loadings = _effects(), _loadings()
    centred = patients.values - 0.5 * effects
    # Σ = I + f·fᵀ on what is there, so Σ⁻¹ = I - f·fᵀ/(1 + |f|²) (Sherman and Morrison 1950)
    shrink = 1.0 / (1.0 + seen @ loadings**2)
    direct = (seen * centred) @ effects
    through = ((seen * centred) @ loadings) * (seen @ (effects * loadings)) * shrink
    first, second = _pair()
    both = seen[:, first] * seen[:, second]
    together = (
        2.0 * INTERACTION / (1.0 - INTERACTION**2) * patients.values[:, first] * patients.values[:, second]
    )
    sick, well = (_ordering(np.array([case]), np.zeros(len(KINDS)))[0] for case in (True, False))
    ordered = np.where(patients.present, np.log(sick / well), np.log((1.0 - sick) / (1.0 - well)))
    ordered = np.where(patients.offered, ordered, 0.0)
    prior = np.log(PREVALENCE / (1.0 - PREVALENCE))
    logits: Floats = prior + direct - through + both * together + ordered.sum(axis=1)
    return logits


def study_form(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return the form of a study over these columns; `sections` are added to those of the same name."""
    form: dict[str, Any] = {
        "study": {"name": "seven-modalities", "project": "simulated", "model": "fusion", "hidden": [16]},
        "fusion": {"kind": "early", "modality_dropout": 0.15},
        "cohort": {"include": [{"kind": "age", "min_years": 0}]},
        "outcome": {"kind": "present", "table": "condition_occurrence", "concept_id": 316139},
        "features": [
            {
                "name": f"{kind.name}.{place}",
                "kind": "value",
                "table": "measurement",
                "concept_id": 2_000_001_000 + 100 * at + place,
                "range": list(PUBLIC_RANGE),
                "modality": kind.name,
            }
            for at, kind in enumerate(KINDS)
            for place in range(kind.columns)
        ],
        "privacy": {"epsilon": 3.0, "delta": 1e-6, "clip_norm": 1.0, "max_sites_per_patient": 1},
        "training": {
            "rounds": 1,
            "steps_per_round": 40,
            "learning_rate": 2.0,
            "momentum": 0.8,
            "expected_patients": 20_000,
            "train_fraction": 0.8,
        },
        "sites": {"minimum": 3, "tolerance": 1},
    }
    for name, changes in sections.items():
        form[name] = form[name] | changes
    return form


def study(**sections: dict[str, Any]) -> Study:
    """Return the study of `study_form`."""
    return Study.from_json(study_form(**sections))


def pooled(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Return all hospitals' rows in one table, which only a simulation can; persons are numbered anew."""
    return FeatureTable(
        np.arange(sum(len(t) for t in tables), dtype=np.int64),
        *(np.concatenate([getattr(t, name) for t in tables]) for name in ("x", "mask", "y")),
    )


def _owner() -> NDArray[np.int64]:
    """Which modality each column belongs to."""
    return np.repeat(np.arange(len(KINDS)), [k.columns for k in KINDS])


def _effects() -> Floats:
    """How far each column's mean lies higher with the outcome."""
    each = [np.where(np.arange(k.columns) < k.telling, k.separation / np.sqrt(k.telling), 0.0) for k in KINDS]
    return np.concatenate(each)


def _loadings() -> Floats:
    return np.concatenate([np.where(np.arange(k.columns) < k.telling, k.loading, 0.0) for k in KINDS])


def _pair() -> tuple[int, int]:
    """The two columns that say something together: the last ones of their modalities."""
    ends = dict(zip((k.name for k in KINDS), np.cumsum([k.columns for k in KINDS]) - 1, strict=True))
    first, second = (int(ends[name]) for name in PAIR)
    return first, second


def _ordering(y: Bools, tilt: Floats) -> Floats:
    """The chance of each modality for patients of outcomes `y`, at a hospital with this tilt."""
    base = np.array([np.log(k.available / (1.0 - k.available)) for k in KINDS])
    more = np.array([k.ordered for k in KINDS])
    odds: Floats = 1.0 / (1.0 + np.exp(-(base + tilt + y[:, None] * more)))
    return odds


def _first(present: Bools) -> Bools:
    """True at the first True of each row."""
    first: Bools = present & (np.cumsum(present, axis=1) == 1)
    return first
