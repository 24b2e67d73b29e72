"""A published CDM of 28 Synthea patients, and the Synthea files that it was made from, written again.

The CSV files that lie beside it in ../shared/data are of 27 other patients: none of their ids is in it. But
the CDM keeps in its source values what each of its rows was made from. Written out as Synthea's files, that
is the source of which it is the expectation, by OHDSI's ETL-Synthea.
"""

import zipfile
from pathlib import Path
from typing import Any

import duckdb

from node.ingest.pipeline import Report
from node.ingest.readers.synthea_rows import DEATH_CERTIFICATION
from node.ingest.registry import READERS
from node.omop import vocabulary
from tests.node.made_facts import CLOCK, Hospital, hospital

TABLES = (
    "PERSON", "DEATH", "VISIT_OCCURRENCE", "CONDITION_OCCURRENCE", "DRUG_EXPOSURE", "PROCEDURE_OCCURRENCE",
    "MEASUREMENT", "OBSERVATION", "DEVICE_EXPOSURE", "OBSERVATION_PERIOD", "CONDITION_ERA", "CONCEPT",
    "CONCEPT_RELATIONSHIP", "DRUG_ERA", "COST", "PAYER_PLAN_PERIOD",
)  # fmt: skip
_WHO = (
    "JOIN person p ON p.person_id = o.person_id"
    " LEFT JOIN visit_occurrence v ON v.visit_occurrence_id = o.visit_occurrence_id"
)
_EVENT = "p.person_source_value AS PATIENT, v.visit_source_value AS ENCOUNTER"
# Each file of the source, as rows of the CDM tell of it.
_SOURCE = {
    "patients": "SELECT person_source_value AS Id, strftime(CAST(birth_datetime AS DATE), '%Y-%m-%d')"
    " AS BIRTHDATE, d.death_date AS DEATHDATE, race_source_value AS RACE,"
    " ethnicity_source_value AS ETHNICITY, gender_source_value AS GENDER FROM person"
    " LEFT JOIN death d USING (person_id) ORDER BY person_id",
    "encounters": "SELECT visit_source_value AS Id, visit_start_date AS START, visit_end_date AS STOP,"
    " person_source_value AS PATIENT, CASE visit_concept_id WHEN '9201' THEN 'inpatient'"
    " WHEN '9203' THEN 'emergency' ELSE 'ambulatory' END AS ENCOUNTERCLASS,"
    f" CASE WHEN cause_source_value IS NULL THEN '' ELSE '{DEATH_CERTIFICATION}' END AS CODE,"
    " cause_source_value AS REASONCODE FROM visit_occurrence v JOIN person USING (person_id)"
    " LEFT JOIN death d ON d.person_id = v.person_id AND d.death_date = v.visit_start_date"
    " ORDER BY v.person_id, visit_start_date, Id",
    "conditions": f"SELECT condition_start_date AS START, condition_end_date AS STOP, {_EVENT},"
    f" condition_source_value AS CODE FROM condition_occurrence o {_WHO}"
    " UNION ALL BY NAME SELECT observation_date AS START, NULL AS STOP, "
    f"{_EVENT}, observation_source_value AS CODE FROM observation o {_WHO}"
    " WHERE observation_source_concept_id IN (SELECT concept_id FROM concept WHERE vocabulary_id = 'SNOMED')",
    "medications": f"SELECT drug_exposure_start_date AS START, drug_exposure_end_date AS STOP, {_EVENT},"
    " drug_source_value AS CODE, '' AS DISPENSES, '' AS TOTALCOST"
    f" FROM drug_exposure o {_WHO}",
    "procedures": f"SELECT procedure_date AS START, procedure_end_date AS STOP, {_EVENT},"
    f" procedure_source_value AS CODE, '' AS BASE_COST, '' AS REASONCODE FROM procedure_occurrence o {_WHO}"
    " UNION ALL BY NAME SELECT measurement_date AS START, NULL AS STOP,"
    f" {_EVENT}, measurement_source_value AS CODE, '' AS BASE_COST, '' AS REASONCODE"
    f" FROM measurement o {_WHO}"
    " WHERE measurement_source_concept_id IN (SELECT concept_id FROM concept WHERE vocabulary_id = 'SNOMED')",
    "observations": f"SELECT measurement_date AS DATE, {_EVENT}, 'laboratory' AS CATEGORY,"
    " measurement_source_value AS CODE, coalesce(value_as_number, value_source_value) AS VALUE,"
    " unit_source_value AS UNITS,"
    f" CASE WHEN value_as_number IS NULL THEN 'text' ELSE 'numeric' END AS TYPE FROM measurement o {_WHO}"
    " WHERE measurement_source_concept_id IN (SELECT concept_id FROM concept WHERE vocabulary_id = 'LOINC')"
    f" UNION ALL BY NAME SELECT observation_date AS DATE, {_EVENT}, 'survey' AS CATEGORY,"
    " observation_source_value AS CODE, '' AS VALUE, NULL AS UNITS, 'text' AS TYPE"
    f" FROM observation o {_WHO}"
    " WHERE observation_source_concept_id IN (SELECT concept_id FROM concept WHERE vocabulary_id = 'LOINC')",
    "devices": f"SELECT device_exposure_start_date AS START, device_exposure_end_date AS STOP, {_EVENT},"
    f" device_source_value AS CODE, unique_device_id AS UDI FROM device_exposure o {_WHO}",
}


def published(archive: Path, where: Path) -> duckdb.DuckDBPyConnection:
    """Return the CDM of the archive as tables of text."""
    with zipfile.ZipFile(archive) as packed:
        for name in TABLES:
            packed.extract(f"{name}.csv", where)
    found = duckdb.connect()
    for name in TABLES:
        found.execute(
            f"CREATE TABLE {name.lower()} AS SELECT * FROM read_csv(?, all_varchar = true, header = true)",
            [str(where / f"{name}.csv")],
        )
    return found


def write_source(cdm: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write Synthea's files that the CDM was made from."""
    for name, query in _SOURCE.items():
        order = "" if name in ("patients", "encounters") else "ORDER BY PATIENT, ENCOUNTER, CODE"
        cdm.execute(f"COPY (SELECT * FROM ({query}) {order}) TO '{folder / name}.csv' (HEADER)")


def write_vocabulary(cdm: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the CDM's vocabulary as Athena packs it. The published one has no ancestors."""
    folder.mkdir()
    day = "strftime(CAST({} AS DATE), '%Y%m%d') AS {}"
    dates = ", ".join(day.format(name, name) for name in ("valid_start_date", "valid_end_date"))
    form = "(HEADER, DELIMITER '\t', QUOTE '', ESCAPE '')"
    cdm.execute(
        "COPY (SELECT concept_id, concept_name, domain_id, vocabulary_id, concept_class_id,"
        f" nullif(standard_concept, '') AS standard_concept, concept_code, {dates},"
        f" nullif(invalid_reason, '') AS invalid_reason FROM concept) TO '{folder / 'CONCEPT.csv'}' {form}"
    )
    cdm.execute(
        f"COPY (SELECT concept_id_1, concept_id_2, relationship_id, {dates},"
        " nullif(invalid_reason, '') AS invalid_reason FROM concept_relationship)"
        f" TO '{folder / 'CONCEPT_RELATIONSHIP.csv'}' {form}"
    )
    cdm.execute(
        "COPY (SELECT concept_id AS ancestor_concept_id, concept_id AS descendant_concept_id,"
        " 0 AS min_levels_of_separation, 0 AS max_levels_of_separation FROM concept"
        f" WHERE standard_concept = 'S') TO '{folder / 'CONCEPT_ANCESTOR.csv'}' {form}"
    )


def loaded(cdm: duckdb.DuckDBPyConnection, where: Path) -> tuple[Hospital, Report]:
    """Load the written source, mapped by the CDM's own vocabulary."""
    site = hospital(where, words=False)
    write_vocabulary(cdm, where / "athena")
    vocabulary.load(where / "athena", site.store, now=CLOCK.now())
    write_source(cdm, site.folder)
    return site, site.take(readers=READERS)


def unshifted(site: Hospital, cdm: duckdb.DuckDBPyConnection) -> list[tuple[int, str, int]]:
    """Return the person id, the source's id and the days that dates were moved by, of everybody."""
    names = [row[0] for row in cdm.execute("SELECT person_source_value FROM person").fetchall()]
    found = site.vault.pseudonyms(names, namespace="synthea")
    return list(zip(found.ids.tolist(), names, found.shift_days.tolist(), strict=True))


def fetched(connection: Any, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    return rows
