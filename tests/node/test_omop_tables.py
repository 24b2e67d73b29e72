"""Our field list is OHDSI's."""

import csv
import re
from pathlib import Path

import duckdb
import pytest

from node.omop.tables import EVENT_TABLES, IMAGING, cdm_tables

USED = {
    "person", "observation_period", "visit_occurrence", "condition_occurrence", "drug_exposure",
    "procedure_occurrence", "measurement", "observation", "death", "concept", "concept_ancestor",
    "cdm_source", "concept_relationship", "vocabulary", "concept_synonym", "source_to_concept_map",
    "device_exposure", "note", "note_nlp", "fact_relationship", "cost", "payer_plan_period",
    "condition_era", "drug_era", "image_occurrence", "image_feature",
}  # fmt: skip


def test_the_tables_used_so_far_are_there() -> None:
    assert set(cdm_tables()) == USED


def test_every_number_of_ohdsi_is_64_bit_here() -> None:
    types = {
        field.datatype: str(field.ibis_type).lstrip("!") for t in cdm_tables().values() for field in t.fields
    }
    assert types["integer"] == "int64"
    assert types["numeric"] == "float64"


def test_a_made_table_has_the_fields_in_order_and_the_required_ones_not_null() -> None:
    connection = duckdb.connect()
    for table in cdm_tables().values():
        connection.execute(table.ddl())
        made = connection.execute(f"PRAGMA table_info('{table.name}')").fetchall()
        assert [row[1] for row in made] == list(table.columns)
        assert [bool(row[3]) for row in made] == [field.required for field in table.fields]


def test_the_statement_exists_for_other_engines_too() -> None:
    assert "DOUBLE PRECISION" in cdm_tables()["measurement"].ddl(dialect="postgres")


def test_the_event_tables_name_fields_that_exist() -> None:
    for shape in EVENT_TABLES.values():
        names = {
            shape.id,
            shape.concept,
            shape.start,
            shape.type_concept,
            shape.source_value,
            shape.source_concept,
        }
        names |= {shape.end} if shape.end else set()
        assert names <= set(cdm_tables()[shape.name].columns)


def test_fields_types_and_flags_equal_ohdsis_ddl(shared_data: Path) -> None:
    ddl = (shared_data / "omop_reference/ddl/OMOPCDM_duckdb_5.4_ddl.sql").read_text().replace('"', "")
    for table in cdm_tables().values():
        if table.name in IMAGING:
            continue
        body = re.search(rf"CREATE TABLE @cdmDatabaseSchema\.{table.name} \((.*?)\);", ddl, re.S)
        assert body is not None
        theirs = re.findall(r"(\w+)\s+([\w()]+)\s+(NOT NULL|NULL)", body.group(1))
        ours = [(f.name, f.datatype, "NOT NULL" if f.required else "NULL") for f in table.fields]
        assert ours == [(name, datatype.lower(), null) for name, datatype, null in theirs]


def test_fields_and_flags_equal_the_data_quality_dashboards(shared_data: Path) -> None:
    with (shared_data / "omop_reference/dqd/OMOP_CDMv5.4_Field_Level.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    compared = 0
    for table in cdm_tables().values():
        if table.name in IMAGING:
            continue
        theirs = {
            row["cdmFieldName"].lower().strip('"'): row
            for row in rows
            if row["cdmTableName"].lower() == table.name
        }
        if not theirs:
            continue
        assert set(theirs) == set(table.columns)
        for field in table.fields:
            assert (theirs[field.name]["isRequired"] == "Yes") == field.required, (table.name, field.name)
            compared += 1
    if not compared:
        pytest.fail("the dashboard's list names none of our tables")
