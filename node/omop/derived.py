"""What follows from a person's records: observation period, eras, cover, costs and links. And a digest of it.

Eras join records of one concept (drugs: of one ingredient) with gaps of at most 30 days, as OHDSI's scripts
do. Their ids are digests of person, concept and start, so that they do not depend on when they were derived.
"""

# ruff: noqa: S608 (statements are put together from names and words of our own)

from __future__ import annotations

import hashlib

import duckdb

from node.omop import plan_periods
from node.omop.side_tables import DRAWN, STAGED, WAITING, former, held, waiting
from node.omop.tables import EVENT_TABLES, cdm_tables

PERIOD_TYPE_CONCEPT_ID = 32882  # observation periods derived from the records themselves
ERA_GAP_DAYS = 30  # OHDSI's persistence window for both kinds of era
COST_RELATIONSHIP = 0  # of a link: not one of fact_relationship, but a cost's
_SPANS = (
    *((table.name, table.start, table.end or table.start) for table in EVENT_TABLES.values()),
    ("visit_occurrence", "visit_start_date", "visit_end_date"),
    ("device_exposure", "device_exposure_start_date", "device_exposure_end_date"),
)
# cost_domain_id, and the concept of the domain that fact_relationship names a table by
_DOMAINS = {
    "condition_occurrence": ("Condition", 19),
    "drug_exposure": ("Drug", 13),
    "procedure_occurrence": ("Procedure", 10),
    "device_exposure": ("Device", 17),
    "measurement": ("Measurement", 21),
    "observation": ("Observation", 27),
    "visit_occurrence": ("Visit", 8),
    "note": ("Note", 5085),
    "image_occurrence": ("Image", 0),
}
_MEASUREMENT_ID = 1147138  # OMOP's concept of the field measurement.measurement_id
_VOCABULARY = (
    "concept",
    "concept_ancestor",
    "concept_relationship",
    "concept_synonym",
    "source_to_concept_map",
    "vocabulary",
)
_DIRTY = "person_id IN (SELECT person_id FROM fedtwin_dirty)"


def periods(where: str = "true") -> str:
    """Return the query for one period per person, from the first to the last day of their records."""
    spans = " UNION ALL ".join(
        f"SELECT person_id, {start} AS first, greatest({start}, coalesce({end}, {start})) AS last"
        f" FROM {name} WHERE {where}"
        for name, start, end in _SPANS
    )
    return (
        f"SELECT person_id, person_id, min(first), max(last), {PERIOD_TYPE_CONCEPT_ID}"
        f" FROM ({spans}) GROUP BY person_id"
    )


def derive(cursor: duckdb.DuckDBPyConnection) -> None:
    """Derive anew for the persons of `fedtwin_dirty`, within the caller's transaction."""
    dirty = cursor.execute("SELECT count(*) FROM fedtwin_dirty").fetchone()
    if not dirty or not dirty[0]:
        return
    for table in ("observation_period", "condition_era", "drug_era"):
        cursor.execute(f"DELETE FROM {table} WHERE {_DIRTY}")
    cursor.execute(f"INSERT INTO observation_period {periods(_DIRTY)}")
    _condition_eras(cursor)
    _drug_eras(cursor)
    plan_periods.draw(cursor)
    _links(cursor)
    cursor.execute("DELETE FROM fedtwin_dirty")


def _eras(records: str) -> str:
    """Join (person_id, concept, first, last) into eras with `records` each."""
    return f"""
        WITH spans AS ({records}),
        marked AS (SELECT *, first > max(last) OVER (PARTITION BY person_id, concept ORDER BY first, last
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + {ERA_GAP_DAYS} AS starts FROM spans),
        numbered AS (SELECT *, count(*) FILTER (starts) OVER (PARTITION BY person_id, concept
            ORDER BY first, last ROWS UNBOUNDED PRECEDING) AS era FROM marked)
        SELECT person_id, concept, min(first) AS first, max(last) AS last, count(*) AS number,
          sum(last - first + 1) AS days FROM numbered GROUP BY person_id, concept, era"""


def _id(*parts: str) -> str:
    text = " || '/' || ".join(f"CAST({part} AS VARCHAR)" for part in parts)
    return f"CAST(md5_number_lower({text}) >> 1 AS BIGINT)"


def _condition_eras(cursor: duckdb.DuckDBPyConnection) -> None:
    records = (
        "SELECT person_id, condition_concept_id AS concept, condition_start_date AS first,"
        " greatest(condition_start_date, coalesce(condition_end_date, condition_start_date)) AS last"
        f" FROM condition_occurrence WHERE condition_concept_id <> 0 AND {_DIRTY}"
    )
    cursor.execute(
        "INSERT INTO condition_era (condition_era_id, person_id, condition_concept_id,"
        " condition_era_start_date, condition_era_end_date, condition_occurrence_count)"
        f" SELECT {_id('person_id', 'concept', 'first')}, person_id, concept, first, last, number"
        f" FROM ({_eras(records)})"
    )


def _drug_eras(cursor: duckdb.DuckDBPyConnection) -> None:
    end = (
        "greatest(drug_exposure_start_date, coalesce(drug_exposure_end_date,"
        " drug_exposure_start_date + CAST(greatest(days_supply, 1) - 1 AS INTEGER),"
        " drug_exposure_start_date))"
    )
    records = (
        f"SELECT person_id, i.concept_id AS concept, drug_exposure_start_date AS first, {end} AS last"
        " FROM drug_exposure JOIN concept_ancestor ON descendant_concept_id = drug_concept_id"
        " JOIN concept i ON i.concept_id = ancestor_concept_id AND i.concept_class_id = 'Ingredient'"
        f" AND i.standard_concept = 'S' WHERE drug_concept_id <> 0 AND {_DIRTY}"
    )
    cursor.execute(
        "INSERT INTO drug_era (drug_era_id, person_id, drug_concept_id, drug_era_start_date,"
        " drug_era_end_date, drug_exposure_count, gap_days)"
        f" SELECT {_id('person_id', 'concept', 'first')}, person_id, concept, first, last, number,"
        f" greatest(last - first + 1 - days, 0) FROM ({_eras(records)})"
    )


def _links(cursor: duckdb.DuckDBPyConnection) -> None:
    """Costs and links of the dirty persons, as soon as both ends are there."""
    found = cursor.execute("SELECT count(*) FROM fedtwin_link").fetchone()
    rest = cursor.execute(
        "SELECT (SELECT count(*) FROM cost) + (SELECT count(*) FROM fact_relationship)"
        " + (SELECT count(*) FROM image_feature)"
    )
    left = rest.fetchone()
    if (not found or not found[0]) and (not left or not left[0]):
        return
    tables = ", ".join(f"('{name}', '{domain}', {concept})" for name, (domain, concept) in _DOMAINS.items())
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE linkable AS SELECT p.record_id, p.table_name, d.domain, d.concept,"
        " g.key_id, g.base_key_id, p.person_id FROM fedtwin_provenance p"
        f" JOIN (VALUES {tables}) d(table_name, domain, concept) USING (table_name)"
        " LEFT JOIN fedtwin_group g ON g.group_id = p.group_id AND g.holds"
        f" WHERE p.person_id IN (SELECT person_id FROM fedtwin_link) AND p.{_DIRTY}"
    )
    for name in WAITING:  # what waits for a description of its person is not in the CDM
        cursor.execute(
            f"DELETE FROM linkable WHERE table_name = '{name}'"
            f" AND record_id IN (SELECT {name}_id FROM {waiting(name)})"
        )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE ends AS SELECT l.record_id, l.key_id, l.relationship_concept_id,"
        " l.person_id, t.record_id AS other_id, t.table_name AS other_table, t.domain, t.concept"
        " FROM fedtwin_link l JOIN linkable t"
        " ON t.person_id = l.person_id AND t.key_id = l.other_key_id"
        " QUALIFY row_number() OVER (PARTITION BY l.record_id ORDER BY t.table_name, t.record_id) = 1"
    )
    cursor.execute(
        "DELETE FROM cost WHERE cost_id IN (SELECT record_id FROM fedtwin_provenance"
        f" WHERE table_name = 'cost' AND {_DIRTY}) OR cost_id NOT IN (SELECT cost_id FROM {held('cost')})"
    )
    fields = ", ".join(
        field
        for field in cdm_tables()["cost"].columns
        if field not in ("cost_id", "cost_event_id", "cost_domain_id")
    )
    cursor.execute(
        "INSERT INTO cost BY NAME SELECT c.cost_id, e.other_id AS cost_event_id, e.domain AS cost_domain_id,"
        f" {fields} FROM {held('cost')} c JOIN ends e ON e.record_id = c.record_id"
    )
    _image_features(cursor)
    cursor.execute(  # of these persons, and of records that have left
        "DELETE FROM fact_relationship WHERE fact_id_1 IN (SELECT record_id FROM fedtwin_provenance"
        f" WHERE {_DIRTY}) OR fact_id_1 NOT IN (SELECT record_id FROM fedtwin_provenance)"
    )
    cursor.execute(
        "INSERT INTO fact_relationship (domain_concept_id_1, fact_id_1, domain_concept_id_2, fact_id_2,"
        " relationship_concept_id) SELECT DISTINCT f.concept, f.record_id, e.concept, e.other_id,"
        " e.relationship_concept_id FROM ends e JOIN linkable f ON f.person_id = e.person_id"
        " AND f.key_id = e.key_id WHERE e.key_id IS NOT NULL"
    )


def _image_features(cursor: duckdb.DuckDBPyConnection) -> None:
    """What was measured in an image, beside the measurement itself."""
    cursor.execute(
        f"DELETE FROM image_feature WHERE {_DIRTY}"
        " OR image_occurrence_id NOT IN (SELECT image_occurrence_id FROM image_occurrence)"
    )
    cursor.execute(
        "INSERT INTO image_feature (image_feature_id, person_id, image_occurrence_id,"
        " image_feature_event_field_concept_id, image_feature_event_id, image_feature_concept_id,"
        " image_feature_type_concept_id, anatomic_site_concept_id)"
        f" SELECT m.measurement_id, m.person_id, i.image_occurrence_id, {_MEASUREMENT_ID}, m.measurement_id,"
        " m.measurement_concept_id, m.measurement_type_concept_id, i.anatomic_site_concept_id"
        " FROM ends e JOIN measurement m ON m.measurement_id = e.record_id"
        " JOIN image_occurrence i ON i.image_occurrence_id = e.other_id"
        " WHERE e.other_table = 'image_occurrence'"
    )


def content_hash(cursor: duckdb.DuckDBPyConnection) -> str:
    """Return a digest of the content (OmopStore.content_hash)."""
    whole = hashlib.sha256()
    for name, digest in sorted(content_digests(cursor).items()):
        whole.update(f"{name} {digest}\n".encode())
    return whole.hexdigest()


def content_digests(cursor: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Return for each table how many rows it has and the sum of their digests.

    Not of the quarantine: whether a record is turned away for what it lacks or because its patient withdrew
    depends on what came first.
    """
    parts = {
        name: f"SELECT * FROM {name}" for name in cdm_tables() if name not in (*_VOCABULARY, "cdm_source")
    }
    parts |= {waiting(name): f"SELECT * FROM {waiting(name)}" for name in WAITING}
    parts |= {held(name): f"SELECT * FROM {held(name)}" for name in DRAWN}
    parts |= {
        name: f"SELECT DISTINCT * EXCLUDE (load_id) FROM {name}"
        for name in ("fedtwin_group", "fedtwin_retraction", "fedtwin_alias", "fedtwin_visit_move")
    }
    parts |= {name: f"SELECT * FROM {name}" for name in ("fedtwin_withdrawn", "fedtwin_last_year")}
    parts |= {former(name): f"SELECT * FROM {former(name)}" for name in STAGED}
    parts |= {name: f"SELECT * FROM {name}" for name in ("fedtwin_link", "fedtwin_former_link")}
    parts["fedtwin_unvisited"] = "SELECT * EXCLUDE (thing_id) FROM fedtwin_unvisited"
    for name, other in (("fedtwin_provenance", ""), ("fedtwin_former_provenance", ", gone_load_id")):
        parts[name] = (
            f"SELECT p.* EXCLUDE (load_id{other}), l.source_sha256, l.mapping_sha256 FROM {name} p"
            " JOIN fedtwin_load l USING (load_id)"
        )
    found = {}
    for name, query in parts.items():
        rows = f"SELECT count(*), sum(CAST(md5_number_lower(CAST(t AS VARCHAR)) AS HUGEINT)) FROM ({query}) t"
        found[name] = str(cursor.execute(rows).fetchone())
    return found
