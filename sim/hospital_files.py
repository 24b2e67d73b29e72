"""Write the patients of `sim.hospitals` as each hospital would: CSV files in its own dialect.

Rows that no hospital should have (impossible dates and values, patients nobody registered) are added on top,
so a reader that quarantines them finds exactly the recorded truth.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.dialects import LAB_CONCEPTS, Dialect
from sim.hospitals import Population

GIVEN = ("Ada", "Bela", "Chidi", "Dora", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena")
FAMILY = ("Abara", "Brandt", "Castillo", "Dvorak", "Eriksen", "Fontaine", "Greco", "Haddad", "Ito", "Jensen")
STREETS = ("Mill Lane", "Station Road", "Quai Nord", "Elm Street", "Marktplatz", "Harbour View")
DIRTY_SHARE = 0.01  # of the lab rows


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a hospital wrote down, as a flawless reader would find it (standard units)."""

    labs: dict[str, NDArray[np.float64]]  # per visit; NaN: not recorded
    diagnosed: NDArray[np.datetime64]  # first day of type 2 diabetes, NaT: never


def write_files(people: Population, dialect: Dialect, folder: Path, *, rng: np.random.Generator) -> Recorded:
    """Write one hospital's files into `folder` and return what stands in them."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [
        dialect.record_number.format(n) for n in rng.permutation(people.patients * 7)[: people.patients]
    ]
    dates = _Dates(dialect.date_format)
    _write_patients(people, dialect, folder / "patients.csv", numbers, dates, rng=rng)
    _write_visits(people, dialect, folder, numbers, dates)
    labs = _write_labs(people, dialect, folder / "labs.csv", numbers, dates, rng=rng)
    diagnosed = _write_diagnoses(people, dialect, folder / "diagnoses.csv", numbers, dates, rng=rng)
    _write_drugs(people, dialect, folder / "medications.csv", numbers, dates)
    return Recorded(labs, diagnosed)


class _Dates:
    """Days as a hospital writes them; each day is formatted once."""

    def __init__(self, form: str) -> None:
        self._form = form

    def write(self, days: NDArray[np.datetime64]) -> list[str]:
        unique, places = np.unique(days, return_inverse=True)
        texts = np.array([day.strftime(self._form) for day in unique.astype("datetime64[D]").tolist()])
        return list(texts[places]) if len(unique) else []


def _write_patients(
    people: Population,
    dialect: Dialect,
    path: Path,
    numbers: list[str],
    dates: _Dates,
    *,
    rng: np.random.Generator,
) -> None:
    """Write who they are, direct identifiers included, and one person with an impossible birth date."""
    size = people.patients
    given, family, street = (rng.choice(words, size) for words in (GIVEN, FAMILY, STREETS))
    house, phone = rng.integers(1, 200, size), rng.integers(1_000_000, 9_999_999, size)
    columns: dict[str, Sequence[object]] = {
        "mrn": numbers,
        "name": [f"{first} {last}" for first, last in zip(given, family, strict=True)],
        "address": [f"{number} {name}" for number, name in zip(house, street, strict=True)],
        "phone": [f"+00 555 {digits}" for digits in phone],
        "birth_date": dates.write(people.birth_day),
        "sex": np.where(people.latent["male"] > 0, *dialect.sex).tolist(),
    }
    if dialect.yes_no:
        columns["smoker"] = np.where(people.latent["smoker"] > 0, *dialect.yes_no).tolist()
    columns["ecg"] = ["1"] * size  # on the index day
    columns["recorded"] = dates.write(people.index_day)
    nobody = {
        "mrn": dialect.record_number.format(9_999_999),
        "birth_date": "31-31-1871",
        "name": "Test Patient",
    }
    dirty = [[nobody.get(name, values[0]) for name, values in columns.items()]]
    _write(path, [dialect.column(name) for name in columns], zip(*columns.values(), strict=True), dirty)


def _write_visits(
    people: Population, dialect: Dialect, folder: Path, numbers: list[str], dates: _Dates
) -> None:
    """Write one file per kind of visit, named in the hospital's way."""
    visits = people.visits
    days = dates.write(visits.day)
    names = [dialect.column(name) for name in ("visit", "mrn", "date")]
    for kind, local in dialect.visit_kinds.items():
        places = np.flatnonzero(visits.kind == kind)
        rows = ((place + 1, numbers[visits.person[place]], days[place]) for place in places)
        _write(folder / f"visits_{local}.csv", names, rows, [])


def _write_labs(
    people: Population,
    dialect: Dialect,
    path: Path,
    numbers: list[str],
    dates: _Dates,
    *,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    visits = people.visits
    size = len(visits.person)
    days, whose = dates.write(visits.day), [numbers[person] for person in visits.person]
    written: dict[str, NDArray[np.float64]] = {}
    for name, lab in dialect.labs.items():
        values = np.round(visits.values[name] * lab.factor, lab.decimals)
        values[rng.random(size) < dialect.missing_share.get(name, 0.0)] = np.nan
        written[name] = values
    dirty_at = rng.integers(0, size, max(2, round(DIRTY_SHARE * size)))
    text = {
        name: _numbers(values, dialect.labs[name].decimals, dialect.missing)
        for name, values in written.items()
    }
    first = next(iter(dialect.labs))
    if dialect.wide_labs:
        names = [dialect.column("mrn"), dialect.column("date"), *(lab.code for lab in dialect.labs.values())]
        rows: Iterable[Sequence[object]] = zip(whose, days, *text.values(), strict=True)
        gaps = [dialect.missing] * (len(text) - 1)
        dirty = [_dirty_row(whose[at], days[at], place, gaps) for place, at in enumerate(dirty_at)]
    else:
        names = [dialect.column(name) for name in ("mrn", "date", "code", "value", "unit", "note")]
        rows = (
            (number, day, lab.code, value, lab.unit, f"pt {number} called" if place % 97 == 0 else "")
            for name, lab in dialect.labs.items()
            for place, (number, day, value) in enumerate(zip(whose, days, text[name], strict=True))
        )
        lab = dialect.labs[first]
        dirty = []
        for place, at in enumerate(dirty_at):
            number, day, value = _dirty_row(whose[at], days[at], place, [])
            dirty.append([number, day, lab.code, value, lab.unit, ""])
    _write(path, names, rows, dirty)
    standard = {name: dialect.labs[name].to_standard(values) for name, values in written.items()}
    nothing = np.full(size, np.nan)
    return {name: standard.get(name, nothing) for name in LAB_CONCEPTS}


def _dirty_row(number: str, day: str, place: int, gaps: list[str]) -> list[str]:
    """Return a row that must not be believed: a date that is none, or a value that no patient has."""
    return [number, "00/00/0000", "120", *gaps] if place % 2 else [number, day, "99999", *gaps]


def _write_diagnoses(
    people: Population,
    dialect: Dialect,
    path: Path,
    numbers: list[str],
    dates: _Dates,
    *,
    rng: np.random.Generator,
) -> NDArray[np.datetime64]:
    """Write conditions before the index day, and the outcome after it. Returns the first day of diabetes."""
    size = people.patients
    earlier = people.index_day - rng.integers(1, 400, size).astype("timedelta64[D]")
    present = {
        "diabetes": people.diabetes,
        "hypertension": people.latent["hypertension"] > 0,
        "atrial_fibrillation": people.latent["atrial_fibrillation"] > 0,
    }
    rows: list[Sequence[object]] = []
    for name, has in present.items():
        days = dates.write(earlier[has])
        rows += [
            (numbers[p], day, dialect.conditions[name])
            for p, day in zip(np.flatnonzero(has), days, strict=True)
        ]
    days = dates.write(people.outcome_day[people.outcome])
    code = dialect.conditions["heart_failure"]
    rows += [(numbers[p], day, code) for p, day in zip(np.flatnonzero(people.outcome), days, strict=True)]
    dirty = [
        [numbers[0], "00/00/0000", dialect.conditions["hypertension"]],
        [numbers[0], "", dialect.conditions["hypertension"]],
    ]
    _write(path, [dialect.column(name) for name in ("mrn", "date", "code")], rows, dirty)
    return np.where(people.diabetes, earlier, np.datetime64("NaT", "D"))


def _write_drugs(people: Population, dialect: Dialect, path: Path, numbers: list[str], dates: _Dates) -> None:
    rows: list[Sequence[object]] = []
    for name, takes in (("metformin", people.metformin), ("statin", people.statin)):
        start, end = people.index_day[takes], people.index_day[takes] + np.timedelta64(90, "D")
        both = zip(np.flatnonzero(takes), dates.write(start), dates.write(end), strict=True)
        rows += [(numbers[person], first, last, dialect.drugs[name]) for person, first, last in both]
    _write(path, [dialect.column(name) for name in ("mrn", "date", "end_date", "code")], rows, [])


def _numbers(values: NDArray[np.float64], decimals: int, missing: str) -> list[str]:
    return [missing if value != value else f"{value:.{decimals}f}" for value in values.tolist()]


def _write(
    path: Path, names: list[str], rows: Iterable[Sequence[object]], dirty: Iterable[Sequence[object]]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
        writer.writerows(dirty)
