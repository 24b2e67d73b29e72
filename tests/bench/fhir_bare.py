"""The floor that a load of FHIR is held against: DuckDB's own SQL from the files into the CDM's tables.

No rule is kept: ids are digests without a key, no date moves, no state is looked at, nothing is a version of
anything, nobody can say where a record came from. Codes are looked up in the same vocabulary, as 'Maps to'
says, and the same tables and columns are filled that ours are of these files, no fewer and no more, as is the
timeline: the ends of visits and deaths are events too. The events of each table are its own type's, whatever
the domain of their concept. Days and times stand as written, without their zone, in the timeline too.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from node.omop.derived import periods
from node.omop.tables import cdm_tables

_CONCEPT = 'STRUCT(coding STRUCT(system VARCHAR, code VARCHAR)[], "text" VARCHAR)'
_REFERENCE = "STRUCT(reference VARCHAR)"
_PERIOD = 'STRUCT("start" VARCHAR, "end" VARCHAR)'
_QUANTITY = 'STRUCT("value" DOUBLE, code VARCHAR)'
_SHARED = {"id": "VARCHAR", "subject": _REFERENCE, "encounter": _REFERENCE}
_COLUMNS = {
    "Patient": {
        "id": "VARCHAR", "gender": "VARCHAR", "birthDate": "VARCHAR", "deceasedDateTime": "VARCHAR",
        "extension":
            "STRUCT(url VARCHAR, extension STRUCT(url VARCHAR, valueCoding STRUCT(code VARCHAR))[])[]",
    },
    "Encounter": {
        "id": "VARCHAR", "subject": _REFERENCE, "class": "STRUCT(code VARCHAR)", "period": _PERIOD,
    },
    "Condition": _SHARED | {"code": _CONCEPT, "onsetDateTime": "VARCHAR", "abatementDateTime": "VARCHAR"},
    "MedicationRequest": _SHARED | {"medicationCodeableConcept": _CONCEPT, "authoredOn": "VARCHAR"},
    "Procedure": _SHARED | {"code": _CONCEPT, "performedPeriod": _PERIOD},
    "Immunization": {
        "id": "VARCHAR", "patient": _REFERENCE, "encounter": _REFERENCE, "vaccineCode": _CONCEPT,
        "occurrenceDateTime": "VARCHAR",
    },
    "Observation": _SHARED | {
        "code": _CONCEPT, "effectiveDateTime": "VARCHAR", "valueQuantity": _QUANTITY,
        "component": f"STRUCT(code {_CONCEPT}, valueQuantity {_QUANTITY})[]",
        "referenceRange": f"STRUCT(low {_QUANTITY}, high {_QUANTITY})[]",
    },
}  # fmt: skip
_VOCABULARIES = (
    "(VALUES ('http://snomed.info/sct', 'SNOMED'), ('http://loinc.org', 'LOINC'),"
    " ('http://www.nlm.nih.gov/research/umls/rxnorm', 'RxNorm'), ('http://hl7.org/fhir/sid/cvx', 'CVX'))"
    " v(system, vocabulary_id)"
)
_MEANING = f"""
CREATE OR REPLACE TEMP TABLE meaning AS
SELECT v.system, c.concept_code AS code, any_value(c.concept_id) AS source_concept_id,
  min(coalesce(r.concept_id_2, CASE WHEN c.standard_concept = 'S' THEN c.concept_id END, 0)) AS concept_id
FROM concept c JOIN {_VOCABULARIES} USING (vocabulary_id)
LEFT JOIN concept_relationship r ON r.concept_id_1 = c.concept_id AND r.relationship_id = 'Maps to'
GROUP BY ALL
"""


def _day(text: str) -> str:
    return f"CAST(left({text}, 10) AS DATE)"


def _stamp(text: str) -> str:
    return f"CAST(left({text}, 19) AS TIMESTAMP)"


_UNIT = (
    "CREATE OR REPLACE TEMP TABLE unit AS SELECT concept_code AS code, min(concept_id) AS concept_id"
    " FROM concept WHERE vocabulary_id = 'UCUM' GROUP BY concept_code"
)
EVENTS = {  # table -> type of resource, its code, start, end, more columns
    "condition_occurrence": (
        "Condition", "condition", "condition_start", "r.code.coding[1]", "r.onsetDateTime",
        {"condition_end_date": _day("r.abatementDateTime"),
         "condition_end_datetime": _stamp("r.abatementDateTime")},
    ),
    "drug_exposure": (
        "MedicationRequest", "drug", "drug_exposure_start", "r.medicationCodeableConcept.coding[1]",
        "r.authoredOn", {"drug_exposure_end_date": _day("r.authoredOn")},
    ),
    "procedure_occurrence": (
        "Procedure", "procedure", "procedure", "r.code.coding[1]", "r.performedPeriod.start",
        {"procedure_end_date": _day('r.performedPeriod."end"'),
         "procedure_end_datetime": _stamp('r.performedPeriod."end"')},
    ),
    "measurement": (
        "Observation", "measurement", "measurement", "r.code.coding[1]", "r.effectiveDateTime",
        {"value_as_number": "r.valueQuantity.value", "unit_source_value": "r.valueQuantity.code",
         "value_source_value": "CAST(r.valueQuantity.value AS VARCHAR)", "unit_concept_id": "u.concept_id",
         "range_low": "r.referenceRange[1].low.value", "range_high": "r.referenceRange[1].high.value"},
    ),
}  # fmt: skip
_VISIT = ("Encounter", "visit", "visit_start")
_LAST = {"drug_exposure": "drug_exposure_end"}
_NO_VALUE = "NULL::DOUBLE AS value, NULL::BIGINT AS unit_concept_id, NULL::VARCHAR AS unit"
KINDS = ("visit_occurrence", *EVENTS)
FILLED = (
    "person",
    "death",
    "observation_period",
    *KINDS,
    "observation",
    "device_exposure",
)  # the last: none
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_RACES = {"2106-3": 8527, "2054-5": 8516, "2028-9": 8515, "1002-5": 8657, "2076-8": 8557}  # CDC's codes
_ETHNICITIES = {"2135-2": 38003563, "2186-5": 38003564}


def _read(folder: Path, kind: str) -> str:
    columns = ", ".join(f"\"{name}\": '{form}'" for name, form in _COLUMNS[kind].items())
    return f"read_json('{folder}/{kind}.*.ndjson', format = 'newline_delimited', columns = {{{columns}}})"


def _hashed(text: str) -> str:
    return f"CAST(hash({text}) >> 1 AS BIGINT)"


def to_cdm(con: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """Fill the tables of the CDM from the files of a bulk export; return how many events they now hold."""
    con.execute(_MEANING)
    con.execute(_UNIT)
    _persons(con, folder)
    visit, last = _hashed("'Encounter/' || id"), 'period."end"'
    con.execute(
        f"INSERT INTO visit_occurrence BY NAME SELECT {visit} AS visit_occurrence_id,"
        f" {_hashed('subject.reference')} AS person_id,"
        " CASE \"class\".code WHEN 'IMP' THEN 9201 WHEN 'EMER' THEN 9203 ELSE 9202 END AS visit_concept_id,"
        f" {_day('period.start')} AS visit_start_date, {_stamp('period.start')} AS visit_start_datetime,"
        f" {_day(last)} AS visit_end_date, {_stamp(last)} AS visit_end_datetime,"
        " 32817 AS visit_type_concept_id, 0 AS visit_source_concept_id,"
        f' "class".code AS visit_source_value FROM {_read(folder, "Encounter")}'
    )
    for table, (kind, prefix, begins, code, when, more) in EVENTS.items():
        _events(con, table, _read(folder, kind), prefix, begins, code, when, more)
    if any(folder.glob("Immunization.*.ndjson")):
        _events(
            con, "drug_exposure",
            f"(SELECT id, patient AS subject, encounter, vaccineCode, occurrenceDateTime"
            f" FROM {_read(folder, 'Immunization')})",
            "drug", "drug_exposure_start", "r.vaccineCode.coding[1]", "r.occurrenceDateTime",
            {"drug_exposure_end_date": _day("r.occurrenceDateTime")},
        )  # fmt: skip
    con.execute(f"INSERT INTO observation_period {periods()}")
    return sum(_count(con, table) for table in KINDS)


def _persons(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    person = _hashed("'Patient/' || id")
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE patient AS SELECT {person} AS person_id, *,"
        f" {_us_core('race')} AS race, {_us_core('ethnicity')} AS ethnicity FROM {_read(folder, 'Patient')}"
    )
    con.execute(
        "INSERT INTO person BY NAME SELECT person_id, CAST(left(birthDate, 4) AS BIGINT) AS year_of_birth,"
        " CASE gender WHEN 'male' THEN 8507 WHEN 'female' THEN 8532 ELSE 0 END AS gender_concept_id,"
        " gender AS gender_source_value, race AS race_source_value, ethnicity AS ethnicity_source_value,"
        f" {_concept('race', _RACES)} AS race_concept_id,"
        f" {_concept('ethnicity', _ETHNICITIES)} AS ethnicity_concept_id FROM patient"
    )
    con.execute(
        f"INSERT INTO death BY NAME SELECT person_id, {_day('deceasedDateTime')} AS death_date,"
        f" {_stamp('deceasedDateTime')} AS death_datetime, 32817 AS death_type_concept_id"
        " FROM patient WHERE deceasedDateTime IS NOT NULL"
    )


def _us_core(name: str) -> str:
    """The code of a patient's race or ethnicity, which US Core puts into an extension of an extension."""
    whole = f"list_filter(extension, lambda one: one.url = '{_US_CORE}{name}')[1].extension"
    return f"list_filter({whole}, lambda one: one.url = 'ombCategory')[1].valueCoding.code"


def _concept(column: str, cases: dict[str, int]) -> str:
    whens = " ".join(f"WHEN '{code}' THEN {concept}" for code, concept in cases.items())
    return f"CASE {column} {whens} ELSE 0 END"


def _events(
    con: duckdb.DuckDBPyConnection, table: str, source: str, prefix: str, begins: str, code: str, when: str,
    more: dict[str, str],
) -> None:  # fmt: skip
    if table == "measurement":  # a component is a record of its own
        source = (
            "(SELECT id || coalesce('#' || p, '') AS id, subject, encounter, effectiveDateTime,"
            " referenceRange, coalesce(component[p].code, code) AS code,"
            " coalesce(component[p].valueQuantity, valueQuantity) AS valueQuantity FROM"
            f" (SELECT *, unnest(CASE WHEN component IS NULL THEN [NULL::BIGINT]"
            f" ELSE generate_series(1, len(component)) END) AS p FROM {source}))"
        )
    columns = {
        f"{table}_id": _hashed("r.id"),
        "person_id": _hashed("r.subject.reference"),
        f"{prefix}_concept_id": "coalesce(m.concept_id, 0)",
        f"{begins}_date": _day(when),
        f"{begins}_datetime": _stamp(when),
        f"{prefix}_type_concept_id": "32817",
        "visit_occurrence_id": _hashed("r.encounter.reference"),
        f"{prefix}_source_value": f"{code}.code",
        f"{prefix}_source_concept_id": "coalesce(m.source_concept_id, 0)",
    } | more
    chosen = ", ".join(f"{what} AS {name}" for name, what in columns.items())
    con.execute(
        f"INSERT INTO {table} BY NAME SELECT {chosen} FROM {source} r"
        f" LEFT JOIN meaning m ON m.system = {code}.system AND m.code = {code}.code"
        + (" LEFT JOIN unit u ON u.code = r.valueQuantity.code" if table == "measurement" else "")
    )


def to_timeline(con: duckdb.DuckDBPyConnection) -> int:
    """Lay all events in order of person and time; return how many."""
    parts = []
    for table, (_, prefix, begins, *_rest) in (("visit_occurrence", _VISIT), *EVENTS.items()):
        last = "NULL::DATE" if table == "measurement" else f"{_LAST.get(table, prefix + '_end')}_date"
        value = "value_as_number, unit_concept_id, unit_source_value" if table == "measurement" else _NO_VALUE
        parts.append(
            f"SELECT person_id, {begins}_datetime AS time, '{prefix}' AS kind, {table}_id AS record_id,"
            f" {prefix}_concept_id AS concept_id, {prefix}_source_value AS source_value, {value},"
            f" {prefix}_type_concept_id AS type_concept_id, visit_occurrence_id, {last} AS last FROM {table}"
        )
    parts.append(
        "SELECT person_id, visit_end_datetime, 'visit-end', visit_occurrence_id, visit_concept_id,"
        f" visit_source_value, {_NO_VALUE}, visit_type_concept_id, visit_occurrence_id, NULL"
        " FROM visit_occurrence"
    )
    parts.append(
        f"SELECT person_id, death_datetime, 'death', person_id, NULL, NULL, {_NO_VALUE},"
        " death_type_concept_id, NULL, NULL FROM death"
    )
    con.execute(f"CREATE TABLE events AS {' UNION ALL '.join(parts)} ORDER BY person_id, time")
    return _count(con, "events")


def make_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Make the tables of the CDM that are filled, and those that hold the vocabulary."""
    for name in (*FILLED, "concept", "concept_relationship"):
        con.execute(cdm_tables()[name].ddl())


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None, "an aggregate always returns one row"
    return int(row[0])
