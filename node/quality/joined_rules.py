"""Checks that look beyond one record, as SQL: each gives the number that fail and the number that count."""

from __future__ import annotations

from collections.abc import Callable

from node.quality.catalogue import Check

# OMOP type concepts of claims: claim, claim discharge record, facility, inpatient, outpatient, pharmacy and
# professional claim, each with its header and detail
CLAIM_TYPES = (
    *(32810, 32811, 32844, 32845, 32846, 32853, 32854, 32855),
    *(32859, 32860, 32861, 32869, 32871, 32872, 32873),
)
GRACE_AFTER_DEATH_DAYS = 60  # reports and bills come late (Data Quality Dashboard)
AROUND_VISIT_DAYS = 7
SEXES = {"Male": 8507, "Female": 8532}
_TYPE_FIELDS = {
    "condition_occurrence": "condition_type_concept_id",
    "drug_exposure": "drug_type_concept_id",
    "procedure_occurrence": "procedure_type_concept_id",
    "measurement": "measurement_type_concept_id",
    "observation": "observation_type_concept_id",
    "device_exposure": "device_type_concept_id",
}
_BIRTH = (
    "coalesce(CAST(p.birth_datetime AS DATE),"
    " TRY(make_date(p.year_of_birth, coalesce(p.month_of_birth, 1), coalesce(p.day_of_birth, 1))))"
)


def needs(check: Check) -> frozenset[str]:
    """Return the tables that the check reads besides its own."""
    match check.name:
        case "isForeignKey":
            return frozenset({check.argument.partition(".")[0]})
        case "fkDomain" | "fkClass" | "isStandardValidConcept":
            return frozenset({"concept"})
        case "plausibleDuringLife" | "plausibleBeforeDeath" | "eventAfterDeath":
            return frozenset({"death"})
        case "withinVisitDates" | "claimBeforeVisit":
            return frozenset({"visit_occurrence"})
        case "plausibleTemporalAfter" | "plausibleAfterBirth" | "eventBeforeBirth":
            return frozenset({"person"})
        case "plausibleGender" | "measurePersonCompleteness":
            return frozenset({"person"})
        case "plausibleGenderUseDescendants":
            return frozenset({"person", "concept_ancestor"})
        case "measureConditionEraCompleteness":
            return frozenset({"condition_occurrence"})
    return frozenset()


def joined_rule(check: Check) -> str | None:
    """Return a SELECT of two numbers: how many fail, and out of how many. None for no such check."""
    rule = _RULES.get(check.name)
    return rule(check) if rule else None


def gender_rules(checks: list[Check]) -> str:
    """Return one SELECT for many checks of sex: table's concept, how many fail, out of how many."""
    return _by_concept(
        checks,
        values=[f"({check.concept_ids[0]}, {SEXES[check.argument.partition(':')[2]]})" for check in checks],
        fails="p.gender_concept_id IS DISTINCT FROM w.wanted",
        joins="JOIN person p ON p.person_id = t.person_id",
        of="true",
    )


def unit_rules(checks: list[Check]) -> str:
    """Return one SELECT for many checks of units; a number without a unit has the unit -1."""
    values = []
    for check in checks:
        units = ", ".join(str(int(unit)) for unit in check.argument.partition(":")[2].split())
        values.append(f"({check.concept_ids[0]}, [{units}]::BIGINT[])")
    return _by_concept(
        checks,
        values=values,
        fails="NOT list_contains(w.wanted, coalesce(t.unit_concept_id, -1)::BIGINT)",
        joins="",
        of="t.value_as_number IS NOT NULL",
    )


def _by_concept(checks: list[Check], *, values: list[str], fails: str, joins: str, of: str) -> str:
    table, field = checks[0].table, checks[0].field
    return (
        f"SELECT t.{field}, count(*) FILTER ({fails}), count(*)"  # noqa: S608 (our names)
        f" FROM {table} t JOIN (VALUES {', '.join(values)}) w(concept, wanted)"
        f" ON w.concept = t.{field} {joins}"
        f" WHERE {of} GROUP BY ALL"
    )


def _values(check: Check) -> str:
    """The distinct values of a field and how many records have each: far fewer than records."""
    return f"(SELECT {check.field} AS v, count(*) AS n FROM {check.table} GROUP BY v)"  # noqa: S608 (our names)


def _of_values(check: Check, fails: str, join: str) -> str:
    return f"SELECT coalesce(sum(n) FILTER ({fails}), 0), sum(n) FROM {_values(check)} d {join}"  # noqa: S608 (our names)


def _foreign_key(check: Check) -> str:
    table, _, field = check.argument.partition(".")
    real = "v IS NOT NULL AND v <> 0" if field == "concept_id" else "v IS NOT NULL"  # 0: no matching concept
    there = f"SELECT 1 FROM {table} o WHERE o.{field} = v"  # noqa: S608 (our names)
    return _of_values(check, f"{real} AND NOT EXISTS ({there})", "")


def _concept(condition: str) -> Callable[[Check], str]:
    def rule(check: Check) -> str:
        wanted = "'" + check.argument.replace("'", "''") + "'"
        return _of_values(
            check,
            f"v <> 0 AND {condition.format(wanted=wanted)}",
            "LEFT JOIN concept c ON c.concept_id = v",
        )

    return rule


def _primary_key(check: Check) -> str:
    return f"SELECT coalesce(sum(n) FILTER (n > 1), 0), sum(n) FROM {_values(check)}"  # noqa: S608


def _source_values(check: Check) -> str:
    return (
        f"SELECT count(*) FILTER (lost), count(*) FROM (SELECT {check.field},"  # noqa: S608
        f" bool_or({check.argument} = 0) AS lost FROM {check.table}"
        f" WHERE {check.field} IS NOT NULL GROUP BY {check.field})"
    )


def _person(fails: str) -> Callable[[Check], str]:
    return lambda check: (
        f"SELECT count(*) FILTER ({fails.format(day=_day(check))}), count(*)"  # noqa: S608
        f" FROM {check.table} t JOIN person p ON p.person_id = t.person_id WHERE t.{check.field} IS NOT NULL"
    )


def _death(days: int) -> Callable[[Check], str]:
    return lambda check: (
        f"SELECT count(*) FILTER ({_day(check)} > died + {days}), count(*)"  # noqa: S608
        f" FROM {check.table} t JOIN (SELECT person_id, min(CAST(death_date AS DATE)) AS died FROM death"
        f" GROUP BY person_id) d ON d.person_id = t.person_id WHERE t.{check.field} IS NOT NULL"
    )


def _visit(check: Check) -> str:
    day, around = _day(check), AROUND_VISIT_DAYS
    return (
        f"SELECT count(*) FILTER ({day} < CAST(v.visit_start_date AS DATE) - {around}"  # noqa: S608
        f" OR {day} > CAST(v.visit_end_date AS DATE) + {around}), count(*) FROM {check.table} t"
        " JOIN visit_occurrence v ON v.visit_occurrence_id = t.visit_occurrence_id"
    )


def _claim(check: Check) -> str:
    types = ", ".join(str(concept) for concept in CLAIM_TYPES)
    return (
        f"SELECT count(*) FILTER ({_day(check)} < CAST(v.visit_start_date AS DATE)), count(*)"  # noqa: S608
        f" FROM {check.table} t JOIN visit_occurrence v ON v.visit_occurrence_id = t.visit_occurrence_id"
        f" WHERE t.{_TYPE_FIELDS[check.table]} IN ({types})"
    )


def _persons(check: Check) -> str:
    return (
        f"SELECT count(*) FILTER (person_id NOT IN (SELECT person_id FROM {check.table}"  # noqa: S608
        " WHERE person_id IS NOT NULL)), count(*) FROM person"
    )


def _eras(_: Check) -> str:
    return (
        "SELECT count(*) FILTER (person_id NOT IN (SELECT person_id FROM condition_era)), count(*)"
        " FROM (SELECT DISTINCT person_id FROM condition_occurrence)"
    )


def _overlap(_: Check) -> str:
    return (
        "SELECT count(DISTINCT person_id) FILTER (coming <= last + 1), count(DISTINCT person_id)"
        " FROM (SELECT person_id, CAST(observation_period_end_date AS DATE) AS last,"
        " lead(CAST(observation_period_start_date AS DATE)) OVER (PARTITION BY person_id"
        " ORDER BY observation_period_start_date, observation_period_end_date) AS coming"
        " FROM observation_period)"
    )


def _gender_of_descendants(check: Check) -> str:
    sex, concepts = SEXES[check.argument.partition(":")[2]], ", ".join(map(str, check.concept_ids))
    return (
        f"SELECT count(*) FILTER (p.gender_concept_id IS DISTINCT FROM {sex}), count(*)"  # noqa: S608
        f" FROM {check.table} t JOIN person p ON p.person_id = t.person_id WHERE t.{check.field} IN"
        f" (SELECT descendant_concept_id FROM concept_ancestor WHERE ancestor_concept_id IN ({concepts}))"
    )


def _day(check: Check) -> str:
    return f"CAST(t.{check.field} AS DATE)"


_RULES: dict[str, Callable[[Check], str]] = {
    "isForeignKey": _foreign_key,
    "fkDomain": _concept("c.domain_id <> {wanted}"),
    "fkClass": _concept("c.concept_class_id <> {wanted}"),
    "isStandardValidConcept": _concept(
        "c.concept_id IS NOT NULL"
        " AND (c.standard_concept IS DISTINCT FROM 'S' OR c.invalid_reason IS NOT NULL)"
    ),
    "isPrimaryKey": _primary_key,
    "sourceValueCompleteness": _source_values,
    "plausibleTemporalAfter": _person(f"{{day}} < {_BIRTH}"),
    "plausibleAfterBirth": _person(f"{{day}} < {_BIRTH}"),
    "eventBeforeBirth": _person("year({day}) < p.year_of_birth"),
    "plausibleDuringLife": _death(GRACE_AFTER_DEATH_DAYS),
    "plausibleBeforeDeath": _death(GRACE_AFTER_DEATH_DAYS),
    "eventAfterDeath": _death(0),
    "withinVisitDates": _visit,
    "claimBeforeVisit": _claim,
    "measurePersonCompleteness": _persons,
    "measureConditionEraCompleteness": _eras,
    "measureObservationPeriodOverlap": _overlap,
    "plausibleGenderUseDescendants": _gender_of_descendants,
}
