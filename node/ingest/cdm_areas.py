"""Where a fact stands in the CDM: by its concept's domain, else by its kind. In SQL, a batch at a time.

The batch is the relation `fact` (node.ingest.fact_stage); `choices` has what its codes came to, one line per
concept. A code that stands for several concepts gives several records, each with an id of its own. A concept
whose domain has no table of records goes to `observation`, as OHDSI does. What has no standard concept stays,
with concept 0, in the table of its source concept's domain or else of its kind.
"""

# ruff: noqa: S608 (statements are put together from names and words of our own)

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from node.ingest.facts import Kind
from node.omop.concepts import Choice
from node.omop.stage import Stage

EHR = 32817  # type concept "EHR": where the reader says nothing else
DOMAIN_TABLES = {
    "Condition": "condition_occurrence",
    "Drug": "drug_exposure",
    "Procedure": "procedure_occurrence",
    "Device": "device_exposure",
    "Measurement": "measurement",
    "Observation": "observation",
    # composite domains of older vocabularies: the first of the two
    "Condition/Device": "condition_occurrence",
    "Condition/Drug": "condition_occurrence",
    "Condition/Meas": "condition_occurrence",
    "Condition/Obs": "condition_occurrence",
    "Condition/Procedure": "condition_occurrence",
    "Device/Drug": "device_exposure",
    "Device/Procedure": "device_exposure",
    "Drug/Procedure": "drug_exposure",
    "Meas/Procedure": "measurement",
    "Measurement/Obs": "measurement",
    "Obs/Procedure": "observation",
}
KIND_TABLES = {
    Kind.CONDITION: "condition_occurrence",
    Kind.DRUG: "drug_exposure",
    Kind.PROCEDURE: "procedure_occurrence",
    Kind.DEVICE: "device_exposure",
    Kind.MEASUREMENT: "measurement",
    Kind.OBSERVATION: "observation",
}
# HL7's classes of encounters and of patients -> concepts of the domain Visit
_VISITS = {
    "AMB": 9202, "O": 9202, "OP": 9202, "OUTPATIENT": 9202, "R": 9202, "C": 9202,
    "IMP": 9201, "I": 9201, "IP": 9201, "INPATIENT": 9201, "ACUTE": 9201, "NONAC": 9201, "SS": 9201,
    "OBSENC": 9201, "B": 9201,
    "EMER": 9203, "E": 9203, "ER": 9203, "EMERGENCY": 9203,
    "HH": 581476, "VR": 5083,
}  # fmt: skip
_SEXES = {"male": 8507, "m": 8507, "female": 8532, "f": 8532}
_RACES = {"2106-3": 8527, "2054-5": 8516, "2028-9": 8515, "1002-5": 8657, "2076-8": 8557}  # CDC's codes
_ETHNICITIES = {"2135-2": 38003563, "2186-5": 38003564}
_OPERATORS = {"=": 4172703, "<": 4171756, "<=": 4171754, ">=": 4171755, ">": 4172704}
_CURRENCIES = {"USD": 44818668}
# Which of a stay's or a claim's diagnoses it is (`details`) -> concepts of OHDSI's Condition Status
_DIAGNOSES = {"principal": 32902, "secondary": 32908, "admitting": 32890}
_SPREAD = 7046029254386353131  # odd: the n-th record of a fact is this many ids away


def _table(domain: str | None) -> str | None:
    return None if domain is None else DOMAIN_TABLES.get(domain, "observation")


def choices_table(choices: Sequence[Choice]) -> pa.Table:
    """Return choices as lines: choice, n, concept_id, table_name, value_concept_id, source_..."""
    lines = [
        (place, n, target.concept_id, _table(target.domain), target.value_concept_id,
         choice.source_concept_id, choice.source_value)
        for place, choice in enumerate(choices)
        for n, target in enumerate(choice.targets)
    ]  # fmt: skip
    columns = list(zip(*lines, strict=True))
    types = [pa.int32(), pa.int64(), pa.int64(), pa.string(), pa.int64(), pa.int64(), pa.string()]
    names = [
        "choice",
        "n",
        "concept_id",
        "table_name",
        "value_concept_id",
        "source_concept_id",
        "source_value",
    ]
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names)


def firsts_table(choices: Sequence[Choice]) -> pa.Table:
    """Return the first concept of each choice: choice, concept_id, source_value, code."""
    return pa.table(
        {
            "choice": pa.array(range(len(choices)), pa.int32()),
            "concept_id": pa.array([choice.targets[0].concept_id for choice in choices], pa.int64()),
            "source_value": pa.array([choice.source_value for choice in choices], pa.string()),
        }
    )


def stage(stage: Stage, *, year_only: bool) -> None:
    """Put the records of the registered batch into the load's stage tables."""
    cursor = stage.cursor
    moved = "year-only" if year_only else "shifted"
    asked = cursor.execute(_PRESENT).fetchall()
    kinds = {kind for kind, _ in asked}
    routed = _ROUTED.format(moved=moved)
    tables = sorted({table for _, table in asked if table is not None})
    for table in tables:
        stage.put(
            table, f"WITH routed AS ({routed}) {_EVENTS[table]} FROM routed WHERE table_name = '{table}'"
        )
    if tables:
        stage.put("provenance", f"WITH routed AS ({routed}) {_PROVENANCE}")
    for kind, (target, record, query) in _OTHERS.items():
        if kind in kinds:
            stage.put(target, query)
            name = target.removeprefix("fedtwin_held_")
            mapped = "CASE WHEN choices.concept_id <> 0 THEN ' mapped' ELSE '' END" if record else "''"
            stage.put(
                "provenance", _OTHER_PROVENANCE.format(name=name, kind=kind, moved=moved, mapped=mapped)
            )
    if Kind.COST in kinds or _told_money(cursor):
        stage.put("fedtwin_held_cost", _COSTS)
        stage.put("provenance", _COST_PROVENANCE)
        stage.put("link", _COST_LINKS)
    if Kind.MEASUREMENT in kinds:
        stage.put("link", _IMAGE_FEATURES)
    if Kind.LINK in kinds:
        stage.put("link", _LINKS)
        link = _OTHER_PROVENANCE.format(name="link", kind=Kind.LINK.value, moved=moved, mapped="''")
        stage.put("provenance", link)


def _told_money(cursor: duckdb.DuckDBPyConnection) -> bool:
    found = cursor.execute("SELECT count(charged) + count(paid) FROM fact").fetchone()
    return bool(found and found[0])


def _case(column: str, cases: dict[str, int]) -> str:
    whens = " ".join(f"WHEN '{word}' THEN {concept}" for word, concept in cases.items())
    return f"CASE {column} {whens} ELSE 0 END"


_KIND_TABLE = (
    "CASE f.kind " + " ".join(f"WHEN '{k.value}' THEN '{t}'" for k, t in KIND_TABLES.items()) + " END"
)
_EVENT_KINDS = ", ".join(f"'{kind.value}'" for kind in KIND_TABLES)
# columns that no event is made of: they cost, above all maps, which are turned row by row
_NOT_OF_EVENTS = "details, note_text, dose, sex, born, charged, paid, currency, race_choice, ethnicity_choice"
_PRESENT = f"""
SELECT DISTINCT f.kind, CASE WHEN f.kind IN ({_EVENT_KINDS}) THEN coalesce(c.table_name, {_KIND_TABLE}) END
FROM (SELECT DISTINCT kind, choice FROM fact) f
LEFT JOIN choices c ON c.choice = f.choice AND f.kind IN ({_EVENT_KINDS})
"""
_ROUTED = f"""
SELECT f.* EXCLUDE (unit, type_concept_id, {_NOT_OF_EVENTS}),
  xor(f.base_id, CAST((c.n::HUGEINT * {_SPREAD}) % 9223372036854775807 AS BIGINT)) AS id,
  coalesce(nullif(f.type_concept_id, 0), {EHR}) AS type_id,
  CASE WHEN f.kind = '{Kind.CONDITION.value}' THEN left(map_extract_value(f.details, 'diagnosis'), 50) END
    AS diagnosis,
  c.concept_id, c.value_concept_id AS mapped_value, c.source_concept_id, c.source_value,
  coalesce(c.table_name, {_KIND_TABLE}) AS table_name,
  v.concept_id AS value_concept_id, v.source_value AS value_code,
  r.concept_id AS route_concept_id, r.source_value AS route_code,
  nullif(u.unit_concept_id, 0) AS unit_id, left(f.unit, 50) AS unit_text, u.factor, u.shift, u.converted,
  coalesce(f.value_number * u.factor + u.shift, f.value_number) AS number,
  coalesce(f.range_low * u.factor + u.shift, f.range_low) AS low,
  coalesce(f.range_high * u.factor + u.shift, f.range_high) AS high,
  concat_ws(' ', '{{moved}}',
    CASE WHEN c.concept_id <> 0 THEN 'mapped' ELSE 'unmapped' END,
    CASE WHEN c.table_name <> {_KIND_TABLE} THEN 'routed' END,
    CASE WHEN u.converted AND f.value_number IS NOT NULL THEN 'unit-converted' END,
    CASE WHEN v.concept_id <> 0 OR c.value_concept_id IS NOT NULL OR f.value_word IS NOT NULL
      THEN 'value-mapped' END,
    CASE WHEN f.withheld THEN 'text-withheld' END) AS words
FROM fact f
JOIN choices c ON c.choice = f.choice
LEFT JOIN value_choices v ON v.choice = f.value_choice AND v.source_value IS NOT NULL
LEFT JOIN route_choices r ON r.choice = f.route_choice AND r.source_value IS NOT NULL
LEFT JOIN conversions u ON u.concept_id = c.concept_id AND u.unit = f.unit
WHERE f.kind IN ({_EVENT_KINDS})
"""


def _event(prefix: str, *more: str, start: str | None = None, end: str | None = None, key: str) -> str:
    """The columns that all tables of events have, under their own names."""
    start = start or f"{prefix}_start"
    columns = [
        f"id AS {key}", "person_id", f"concept_id AS {prefix}_concept_id", f"day AS {start}_date",
        f"stamp AS {start}_datetime", f"type_id AS {prefix}_type_concept_id",
        "visit_id AS visit_occurrence_id", f"source_value AS {prefix}_source_value",
        f"source_concept_id AS {prefix}_source_concept_id", "group_id", "version", "rank",
    ]  # fmt: skip
    if end:
        columns += [f"end_day AS {end}_date", f"end_stamp AS {end}_datetime"]
    return "SELECT " + ", ".join([*columns, *more])


_VALUE = "coalesce(nullif(value_concept_id, 0), mapped_value, value_word)"
_OPERATOR = f"nullif({_case('value_operator', _OPERATORS)}, 0)"
_UNITS = ("unit_id AS unit_concept_id", "unit_text AS unit_source_value")
_WHICH = "diagnosis"
_AS_WRITTEN = "coalesce(value_operator, '') || CAST(value_number AS VARCHAR)"
_EVENTS = {
    "condition_occurrence": _event(
        "condition", f"nullif({_case(_WHICH, _DIAGNOSES)}, 0) AS condition_status_concept_id",
        f"{_WHICH} AS condition_status_source_value", end="condition_end", key="condition_occurrence_id",
    ),
    "drug_exposure": _event(
        "drug", "coalesce(end_day, day + CAST(greatest(coalesce(days_supply, 1), 1) - 1 AS INTEGER))"
        " AS drug_exposure_end_date", "end_stamp AS drug_exposure_end_datetime",
        "CAST(refills AS BIGINT) AS refills", "quantity", "CAST(days_supply AS BIGINT) AS days_supply",
        "nullif(route_concept_id, 0) AS route_concept_id", "route_code AS route_source_value",
        start="drug_exposure_start", key="drug_exposure_id",
    ),
    "procedure_occurrence": _event(
        "procedure", "CAST(round(quantity) AS BIGINT) AS quantity", start="procedure", end="procedure_end",
        key="procedure_occurrence_id",
    ),
    "device_exposure": _event(
        "device", "CAST(round(quantity) AS BIGINT) AS quantity", *_UNITS, start="device_exposure_start",
        end="device_exposure_end", key="device_exposure_id",
    ),
    "measurement": _event(
        "measurement", "number AS value_as_number", f"{_VALUE} AS value_as_concept_id",
        f"CASE WHEN value_number IS NOT NULL THEN {_OPERATOR} END AS operator_concept_id",
        *_UNITS, "low AS range_low", "high AS range_high",
        f"left(coalesce({_AS_WRITTEN}, value_code, value_text), 50) AS value_source_value",
        start="measurement", key="measurement_id",
    ),
    "observation": _event(
        "observation", "number AS value_as_number", f"{_VALUE} AS value_as_concept_id",
        "left(value_text, 60) AS value_as_string", *_UNITS,
        f"left(coalesce({_AS_WRITTEN}, value_code, value_text), 50) AS value_source_value",
        start="observation", key="observation_id",
    ),
}  # fmt: skip
_PROVENANCE = """
SELECT table_name, id AS record_id, record AS source_row, place, recorded_at, utc_offset_min, precision,
  words AS transformations, person_id, group_id, version, rank FROM routed
"""
_OTHER_PROVENANCE = """
SELECT '{name}' AS table_name, base_id AS record_id, record AS source_row, place, recorded_at,
  utc_offset_min, precision, '{moved}' || {mapped} AS transformations, person_id, group_id, version, rank
FROM fact LEFT JOIN choices ON choices.choice = fact.choice AND choices.n = 0 WHERE kind = '{kind}'
"""
_FIRST = "LEFT JOIN choices c ON c.choice = f.choice AND c.n = 0"
_DETAIL = "left(map_extract_value(f.details, '{}'), 50)"
_VISIT_CONCEPT = (
    "CASE WHEN c.concept_id <> 0 THEN c.concept_id ELSE " + _case("upper(c.source_value)", _VISITS) + " END"
)
# kind -> stage table, whether its concept counts as mapped, the query
_OTHERS: dict[str, tuple[str, bool, str]] = {
    Kind.PERSON: (
        "fedtwin_held_person", False,
        f"""SELECT f.base_id AS record_id, f.group_id, f.version, f.rank, f.person_id,
          f.born AS year_of_birth,
          {_case("lower(f.sex)", _SEXES)} AS gender_concept_id, left(f.sex, 50) AS gender_source_value,
          CASE WHEN r.concept_id <> 0 THEN r.concept_id ELSE {_case("r.source_value", _RACES)} END
            AS race_concept_id, r.source_value AS race_source_value,
          CASE WHEN e.concept_id <> 0 THEN e.concept_id ELSE {_case("e.source_value", _ETHNICITIES)} END
            AS ethnicity_concept_id, e.source_value AS ethnicity_source_value
        FROM fact f LEFT JOIN race_choices r ON r.choice = f.race_choice
        LEFT JOIN ethnicity_choices e ON e.choice = f.ethnicity_choice WHERE f.kind = 'person'""",
    ),
    Kind.DEATH: (
        "fedtwin_held_death", True,
        f"""SELECT f.base_id AS record_id, f.group_id, f.version, f.rank, f.person_id, f.day AS death_date,
          f.stamp AS death_datetime, coalesce(nullif(f.type_concept_id, 0), {EHR}) AS death_type_concept_id,
          nullif(c.concept_id, 0) AS cause_concept_id, c.source_value AS cause_source_value,
          nullif(c.source_concept_id, 0) AS cause_source_concept_id
        FROM fact f {_FIRST} WHERE f.kind = 'death'""",
    ),
    Kind.VISIT: (
        "visit_occurrence", True,
        f"""SELECT f.base_id AS visit_occurrence_id, f.person_id, {_VISIT_CONCEPT} AS visit_concept_id,
          f.day AS visit_start_date, f.stamp AS visit_start_datetime,
          coalesce(f.end_day, f.day) AS visit_end_date, f.end_stamp AS visit_end_datetime,
          coalesce(nullif(f.type_concept_id, 0), {EHR}) AS visit_type_concept_id,
          c.source_value AS visit_source_value, c.source_concept_id AS visit_source_concept_id,
          f.group_id, f.version, f.rank
        FROM fact f {_FIRST} WHERE f.kind = 'visit'""",
    ),
    Kind.NOTE: (
        "note", True,
        f"""SELECT f.base_id AS note_id, f.person_id, f.day AS note_date, f.stamp AS note_datetime,
          coalesce(nullif(f.type_concept_id, 0), {EHR}) AS note_type_concept_id,
          coalesce(c.concept_id, 0) AS note_class_concept_id, f.note_text, 32678 AS encoding_concept_id,
          0 AS language_concept_id, f.visit_id AS visit_occurrence_id, c.source_value AS note_source_value,
          f.group_id, f.version, f.rank
        FROM fact f {_FIRST} WHERE f.kind = 'note'""",
    ),
    Kind.COVERAGE: (
        "fedtwin_held_payer_plan_period", True,
        f"""SELECT f.base_id AS record_id, f.base_id AS payer_plan_period_id, f.person_id,
          f.day AS payer_plan_period_start_date,
          coalesce(f.end_day, f.day) AS payer_plan_period_end_date,
          nullif(c.concept_id, 0) AS payer_concept_id,
          coalesce(c.source_value, {_DETAIL.format("payer")}) AS payer_source_value,
          nullif(c.source_concept_id, 0) AS payer_source_concept_id,
          {_DETAIL.format("plan")} AS plan_source_value, f.group_id, f.version, f.rank
        FROM fact f {_FIRST} WHERE f.kind = 'coverage'""",
    ),
    Kind.IMAGE: (
        "image_occurrence", True,
        f"""SELECT f.base_id AS image_occurrence_id, f.person_id, f.visit_id AS visit_occurrence_id,
          f.day AS image_occurrence_date, f.image_study_uid, f.image_series_uid,
          CASE WHEN c.source_value = {_DETAIL.format("modality")} THEN c.concept_id ELSE 0 END
            AS modality_concept_id, {_DETAIL.format("modality")} AS modality_source_value,
          coalesce({_DETAIL.format("anatomic_site")}, {_DETAIL.format("body_site")})
            AS anatomic_site_source_value,
          TRY_CAST(coalesce({_DETAIL.format("number_of_instances")}, {_DETAIL.format("instances")}) AS BIGINT)
            AS number_of_instances, f.group_id, f.version, f.rank
        FROM fact f {_FIRST} WHERE f.kind = 'image'""",
    ),
}  # fmt: skip
_MONEY = "(f.kind = 'cost' OR f.charged IS NOT NULL OR f.paid IS NOT NULL)"
_COST_ID = f"CASE WHEN f.kind = 'cost' THEN f.base_id ELSE xor(f.base_id, {_SPREAD}) END"
_AMOUNTS = (
    "total_cost", "paid_by_payer", "paid_by_patient", "paid_patient_copay", "paid_patient_coinsurance",
    "paid_patient_deductible", "paid_by_primary", "paid_ingredient_cost", "paid_dispensing_fee",
    "amount_allowed",
)  # fmt: skip
_PAID = ", ".join(
    f"TRY_CAST(map_extract_value(f.details, '{name}') AS DOUBLE) AS {name}" for name in _AMOUNTS
)
_COSTS = f"""
SELECT {_COST_ID} AS record_id, f.group_id, {_COST_ID} AS cost_id, 0 AS cost_event_id,
  '' AS cost_domain_id, f.version, f.rank,
  coalesce(nullif(f.type_concept_id, 0), {EHR}) AS cost_type_concept_id,
  nullif({_case("f.currency", _CURRENCIES)}, 0) AS currency_concept_id, f.charged AS total_charge,
  f.paid AS total_paid, {_PAID}
FROM fact f WHERE {_MONEY}
"""
_COST_PROVENANCE = f"""
SELECT 'cost' AS table_name, {_COST_ID} AS record_id, f.record AS source_row, f.place, f.recorded_at,
  f.utc_offset_min, f.precision, '' AS transformations, f.person_id, f.group_id, f.version, f.rank
FROM fact f WHERE {_MONEY}
"""
_COST_LINKS = f"""
SELECT {_COST_ID} AS record_id, NULL::BIGINT AS key_id,
  CASE WHEN f.kind = 'cost' THEN f.other_key_id ELSE f.key_id END AS other_key_id, f.person_id,
  0 AS relationship_concept_id, f.group_id, f.rank
FROM fact f WHERE {_MONEY} AND CASE WHEN f.kind = 'cost' THEN f.other_key_id ELSE f.key_id END IS NOT NULL
"""
# what an algorithm measured in an image names the image (node.omop.derived makes image_feature of it)
_IMAGE_FEATURES = """
SELECT f.base_id AS record_id, NULL::BIGINT AS key_id, f.other_key_id, f.person_id,
  0 AS relationship_concept_id, f.group_id, f.rank
FROM fact f WHERE f.kind = 'measurement' AND f.type_concept_id = 32880 AND f.other_key_id IS NOT NULL
"""
_LINKS = """
SELECT f.base_id AS record_id, f.key_id, f.other_key_id, f.person_id,
  coalesce(c.concept_id, 0) AS relationship_concept_id, f.group_id, f.rank
FROM fact f LEFT JOIN choices c ON c.choice = f.choice AND c.n = 0 WHERE f.kind = 'link'
"""
