"""What others may know of a person: as columns of a store in OMOP form, and how to say it less exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deid.risk import SUPPRESSED, Generalize, Hierarchy, bands

_VISITS = "(SELECT person_id, min(visit_start_date) AS first, max(visit_start_date) AS last, count(*) AS n"
_VISITS += " FROM visit_occurrence GROUP BY person_id)"
QUASI: Mapping[str, str] = {  # SQL over p (person), v (visits), d (death), l (location)
    "sex": "p.gender_concept_id",
    "race": "p.race_concept_id",
    "ethnicity": "p.ethnicity_concept_id",
    "birth_year": "p.year_of_birth",
    "zip3": "substr(l.zip, 1, 3)",
    "state": "l.state",
    "death_year": "year(d.death_date)",
    "first_visit_year": "year(v.first)",  # dates are moved: a year off by one
    "visits": "coalesce(v.n, 0)",
    # moving dates by one number of days per person keeps what lies between them: who knows two dates of a
    # person knows it too
    "days_first_to_last": "date_diff('day', v.first, v.last)",
}
USUAL = ("sex", "birth_year", "race", "ethnicity")


def of_store(cursor: Any, *, quasi: Sequence[str], conditions: Sequence[int] = ()) -> dict[str, list[Any]]:
    """Return the quasi-identifiers of each person of a store (DuckDB, the CDM's tables by their names).

    Args: conditions: concepts (and what is under them) of which others may know whether a person has them;
        each is a column "condition:ID".
    Raises: ValueError for a name that is not in QUASI.
    """
    for name in quasi:
        if name not in QUASI:
            raise ValueError(f"no quasi-identifier {name}: one of {', '.join(QUASI)}")
    chosen = [f'{QUASI[name]} AS "{name}"' for name in quasi]
    for concept in conditions:
        chosen.append(  # integers alone are put in
            "EXISTS (SELECT 1 FROM condition_occurrence c WHERE c.person_id = p.person_id"  # noqa: S608
            f" AND c.condition_concept_id IN (SELECT descendant_concept_id FROM concept_ancestor"
            f" WHERE ancestor_concept_id = {int(concept)} UNION SELECT {int(concept)}))"
            f' AS "condition:{int(concept)}"'
        )
    if not chosen:
        raise ValueError("name the quasi-identifiers: what others may know of a person")
    joins = "" if not {"zip3", "state"} & set(quasi) else " LEFT JOIN location l USING (location_id)"
    joins += "" if "death_year" not in quasi else " LEFT JOIN death d ON d.person_id = p.person_id"
    visits = {"first_visit_year", "visits", "days_first_to_last"} & set(quasi)
    joins += f" LEFT JOIN {_VISITS} v ON v.person_id = p.person_id" if visits else ""
    rows = cursor.execute(f"SELECT {', '.join(chosen)} FROM person p{joins} ORDER BY p.person_id").fetchall()  # noqa: S608 (names of the table above and integers)
    names = [*quasi, *(f"condition:{int(concept)}" for concept in conditions)]
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def hierarchy_of(name: str, values: Sequence[object]) -> Hierarchy:
    """Return how a column can be said less exactly: by its name, or as numbers or codes by what it holds."""
    lower = name.lower()
    if "zip" in lower or "postal" in lower:
        longest = max((len(str(value)) for value in values if value is not None), default=3)
        shorter = [(f"{digits} digits", _start(digits)) for digits in (3, 2, 1) if digits < longest]
        return _of([("exact", str), *shorter])
    if all(_is_number(value) for value in values if value not in (None, "")) and len(set(values)) > 3:
        widths = (5, 10, 20) if "year" in lower or "age" in lower else (2, 5, 20, 100)
        return _of([("exact", str), *((f"bands of {width}", bands(width)) for width in widths)])
    return _of([("exact", str)])


def _of(levels: list[tuple[str, Generalize]]) -> Hierarchy:
    return Hierarchy((*levels, ("left out", lambda _: SUPPRESSED)))


def _start(digits: int) -> Generalize:
    return lambda value: value[:digits]


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
