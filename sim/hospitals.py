"""Patients of hospitals that do not exist: one latent truth, drawn from a seed, all columns at once.

The truth is complete and exact; what a hospital writes down of it (other names, units, gaps and errors) is
the business of `sim.hospital_files`. Nothing here is a model of a real population.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SIZES = (900, 250, 120, 80)  # one centre and three that are too small to train alone
OUTCOME_WINDOW_DAYS = 365
MEAN_VISITS = 7.0  # per patient over the five years, besides the first one

# What drives the outcome, each scaled by a fixed clinical range: (value - low) / (high - low).
# The coefficients are on that scale; together they give a logistic model an AUC of about .8.
RANGES: dict[str, tuple[float, float]] = {
    "age_years": (30.0, 90.0),
    "sbp_mmhg": (90.0, 190.0),
    "cholesterol_mg_dl": (120.0, 300.0),
    "hba1c_percent": (4.5, 11.0),
    "creatinine_mg_dl": (0.5, 3.0),
    "bmi_kg_m2": (17.0, 45.0),
    "male": (0.0, 1.0),
    "smoker": (0.0, 1.0),
    "hypertension": (0.0, 1.0),
    "atrial_fibrillation": (0.0, 1.0),
}
COEFFICIENTS: dict[str, float] = {
    "age_years": 3.25,
    "sbp_mmhg": 2.75,
    "cholesterol_mg_dl": 1.0,
    "hba1c_percent": 2.5,
    "creatinine_mg_dl": 3.5,
    "bmi_kg_m2": 1.25,
    "male": 0.625,
    "smoker": 1.25,
    "hypertension": 0.875,
    "atrial_fibrillation": 1.375,
}
INTERCEPT = -7.3  # about three patients in ten have the outcome


@dataclass(frozen=True, slots=True)
class Visits:
    """Rows of visits: whose, when, of which kind, and what was measured (true values, standard units)."""

    person: Ints  # index into the population
    day: NDArray[np.datetime64]
    kind: NDArray[np.str_]  # inpatient, outpatient or emergency
    values: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Population:
    """One hospital's patients as they are. Rows of `people` columns stand for the same patient."""

    hospital: int
    birth_day: NDArray[np.datetime64]
    index_day: NDArray[np.datetime64]
    outcome_day: NDArray[np.datetime64]  # NaT where there is no outcome
    latent: dict[str, Floats]  # by the names of RANGES
    diabetes: Bools
    statin: Bools
    metformin: Bools
    visits: Visits

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len(self.birth_day)

    @property
    def outcome(self) -> Bools:
        """Whether each patient has the outcome within a year of the index day."""
        return ~np.isnat(self.outcome_day)

    def scaled(self) -> Floats:
        """Return the features as a matrix (patients × features), scaled by RANGES and clipped to [0, 1]."""
        columns = [(self.latent[name] - low) / (high - low) for name, (low, high) in RANGES.items()]
        return np.clip(np.column_stack(columns), 0.0, 1.0)


def populations(*, seed: int, sizes: tuple[int, ...] = SIZES) -> tuple[Population, ...]:
    """Return one population for each size. The same seed gives the same patients."""
    if not sizes or min(sizes) < 1:
        raise ValueError("each hospital needs at least one patient")
    streams = np.random.SeedSequence(seed).spawn(len(sizes))
    return tuple(
        _population(hospital, size, rng=np.random.default_rng(stream))
        for hospital, (size, stream) in enumerate(zip(sizes, streams, strict=True))
    )


def _population(hospital: int, size: int, *, rng: np.random.Generator) -> Population:
    """Draw one hospital. Hospitals differ in who comes to them, not in how the outcome arises."""
    shift = (0.0, 0.5, -0.4, 0.8)[hospital % 4]  # older and sicker, or younger
    frailty = rng.normal(0.0, 1.0, size) + 0.3 * shift  # one cause behind several values
    age = np.clip(62.0 + 6.0 * shift + 13.0 * rng.normal(size=size), 19.0, 98.0)
    male = (rng.random(size) < 0.5 + 0.1 * shift).astype(float)
    bmi = np.clip(27.5 + 2.0 * frailty + 4.0 * rng.normal(size=size), 15.5, 55.0)
    diabetes = rng.random(size) < _sigmoid(-1.5 + 0.7 * frailty + 0.08 * (bmi - 27.5))
    hba1c = np.clip(5.5 + 0.2 * frailty + 0.3 * rng.normal(size=size), 4.2, 6.4)
    hba1c = np.where(diabetes, np.clip(7.6 + 0.4 * frailty + 1.1 * rng.normal(size=size), 5.6, 13.5), hba1c)
    hypertension = rng.random(size) < _sigmoid(-0.4 + 0.6 * frailty + 0.04 * (age - 62.0))
    sbp = np.clip(124.0 + 14.0 * hypertension + 15.0 * rng.normal(size=size), 82.0, 220.0)
    statin = rng.random(size) < _sigmoid(-0.8 + 0.9 * diabetes + 0.03 * (age - 62.0))
    cholesterol = np.clip(205.0 - 25.0 * statin + 36.0 * rng.normal(size=size), 95.0, 360.0)
    creatinine = np.exp(rng.normal(-0.06 + 0.14 * frailty + 0.006 * (age - 62.0), 0.26, size))
    latent = {
        "age_years": age,
        "sbp_mmhg": sbp,
        "cholesterol_mg_dl": cholesterol,
        "hba1c_percent": hba1c,
        "creatinine_mg_dl": np.clip(creatinine, 0.4, 8.0),
        "bmi_kg_m2": bmi,
        "male": male,
        "smoker": (rng.random(size) < 0.24).astype(float),
        "hypertension": hypertension.astype(float),
        "atrial_fibrillation": (rng.random(size) < _sigmoid(-2.6 + 0.06 * (age - 62.0))).astype(float),
    }
    index_day = np.datetime64("2022-07-01") + rng.integers(0, 2 * 365, size).astype("timedelta64[D]")
    birth_day = index_day - np.round(age * 365.25).astype("timedelta64[D]")
    outcome = rng.random(size) < _sigmoid(_linear_predictor(latent))
    after = rng.integers(7, OUTCOME_WINDOW_DAYS - 5, size).astype("timedelta64[D]")
    return Population(
        hospital=hospital,
        birth_day=birth_day,
        index_day=index_day,
        outcome_day=np.where(outcome, index_day + after, np.datetime64("NaT", "D")),
        latent=latent,
        diabetes=diabetes,
        statin=statin,
        metformin=diabetes & (rng.random(size) < 0.7),
        visits=_visits(index_day, latent, rng=rng),
    )


def _visits(
    index_day: NDArray[np.datetime64], latent: dict[str, Floats], *, rng: np.random.Generator
) -> Visits:
    """Draw each patient's visits: one on the index day, the others over the two years up to it."""
    size = len(index_day)
    counts = rng.poisson(MEAN_VISITS, size)
    person = np.concatenate([np.arange(size), np.repeat(np.arange(size), counts)])
    before = np.concatenate([np.zeros(size, dtype=np.int64), rng.integers(1, 540, int(counts.sum()))])
    order = np.lexsort((-before, person))
    person, before = person[order], before[order]
    rows = len(person)
    jitter = {  # standard deviation of one reading around the patient's own level
        "sbp_mmhg": 4.0,
        "cholesterol_mg_dl": 8.0,
        "hba1c_percent": 0.15,
        "creatinine_mg_dl": 0.05,
        "bmi_kg_m2": 0.3,
    }
    values = {name: latent[name][person] + sd * rng.normal(size=rows) for name, sd in jitter.items()}
    values["hba1c_percent"] = np.maximum(values["hba1c_percent"], 4.0)
    values["creatinine_mg_dl"] = np.maximum(values["creatinine_mg_dl"], 0.3)
    kind = rng.choice(["outpatient", "inpatient", "emergency"], size=rows, p=[0.78, 0.14, 0.08])
    return Visits(person, index_day[person] - before.astype("timedelta64[D]"), kind, values)


def _linear_predictor(latent: dict[str, Floats]) -> Floats:
    total = np.full(len(latent["age_years"]), INTERCEPT)
    for name, (low, high) in RANGES.items():
        total += COEFFICIENTS[name] * np.clip((latent[name] - low) / (high - low), 0.0, 1.0)
    return total


def _sigmoid(z: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-z))
