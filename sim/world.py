"""What a demo or a test needs of hospitals that do not exist: files, mappings, question, plan, truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sim.dialects import CONDITION_CONCEPTS, DIALECTS, DRUG_CONCEPTS, LAB_CONCEPTS, Dialect
from sim.hospital_files import Recorded, write_files
from sim.hospitals import COEFFICIENTS, INTERCEPT, RANGES, SIZES, Population, populations
from sim.mappings import write_mappings

HBA1C_AT_LEAST = 7.5  # percent: diabetes that is not well controlled
WINDOW_DAYS = 365

# Type 2 diabetes, not well controlled within a year of the diagnosis, on metformin.
COHORT: dict[str, Any] = {
    "index": {"kind": "condition", "concepts": [CONDITION_CONCEPTS["diabetes"]]},
    "include": [
        {
            "kind": "measurement",
            "concepts": [LAB_CONCEPTS["hba1c_percent"][0]],
            "unit": LAB_CONCEPTS["hba1c_percent"][1],
            "value": {"min": HBA1C_AT_LEAST},
            "window": {"from_days": -WINDOW_DAYS, "to_days": WINDOW_DAYS},
        },
        {"kind": "drug", "concepts": [DRUG_CONCEPTS["metformin"]]},
    ],
}


@dataclass(frozen=True, slots=True)
class Hospital:
    """One hospital: `files` is what it takes in, with the mapping of each beside it."""

    slug: str
    title: str
    files: Path
    patients: int


@dataclass(frozen=True, slots=True)
class World:
    """What `write_world` made. `truth` is what truth.json holds."""

    folder: Path
    hospitals: tuple[Hospital, ...]
    truth: dict[str, Any]

    @property
    def cohort(self) -> Path:
        """The cohort question."""
        return self.folder / "cohort.json"

    @property
    def study(self) -> Path:
        """The training plan."""
        return self.folder / "study.toml"


def write_world(folder: Path, *, seed: int, sizes: tuple[int, ...] = SIZES) -> World:
    """Write hospitals of `sizes` into `folder`. The same seed gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    hospitals, counts, in_fact, outcomes = [], {}, 0, []
    streams = np.random.SeedSequence([seed, len(sizes)]).spawn(len(sizes))
    for people, stream in zip(populations(seed=seed, sizes=sizes), streams, strict=True):
        dialect, slug, title = _named(people.hospital)
        place = folder / "hospitals" / slug
        recorded = write_files(people, dialect, place, rng=np.random.default_rng(stream))
        write_mappings(dialect, place)
        hospitals.append(Hospital(slug, title, place, people.patients))
        level = people.visits.values["hba1c_percent"]
        counts[slug] = _cohort_count(people, recorded, recorded.labs["hba1c_percent"])
        in_fact += _cohort_count(people, recorded, level)
        outcomes.append(people.outcome)
    truth = {
        "seed": seed,
        "patients": {hospital.slug: hospital.patients for hospital in hospitals},
        "count": {"recorded": sum(counts.values()), "by_hospital": counts, "in_fact": in_fact},
        "outcome_rate": float(np.concatenate(outcomes).mean()),
        "coefficients": {"intercept": INTERCEPT, **COEFFICIENTS},
        "ranges": {name: list(ends) for name, ends in RANGES.items()},
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    (folder / "cohort.json").write_text(json.dumps(COHORT, indent=2) + "\n", encoding="utf-8")
    study = resources.files("sim").joinpath("studies", "heart_failure.toml")
    (folder / "study.toml").write_bytes(study.read_bytes())
    return World(folder, tuple(hospitals), truth)


def _named(place: int) -> tuple[Dialect, str, str]:
    """Return the dialect of hospital `place`; beyond the fourth, dialects repeat under other names."""
    dialect = DIALECTS[place % len(DIALECTS)]
    again = place // len(DIALECTS)
    suffix = f"-{again + 1}" if again else ""
    return dialect, dialect.slug + suffix, dialect.title + suffix.replace("-", " ")


def _cohort_count(people: Population, recorded: Recorded, hba1c: np.ndarray) -> int:
    """Count COHORT, given one HbA1c value (or NaN) per visit."""
    visits = people.visits
    days = (visits.day - recorded.diagnosed[visits.person]).astype("timedelta64[D]")
    near = ~np.isnat(days) & (np.abs(days.astype(np.int64)) <= WINDOW_DAYS)
    high = np.zeros(people.patients, dtype=bool)
    high[visits.person[near & (hba1c >= HBA1C_AT_LEAST)]] = True
    return int((high & people.diabetes & people.metformin).sum())
