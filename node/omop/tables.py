"""The OMOP CDM 5.4 tables that are used so far, as data: `cdm54.csv` beside this file.

The list of fields, datatypes and required flags is OHDSI's (CommonDataModel 5.4, Apache-2.0). Two datatypes
are wider here: every `integer` is an int64, because pseudonyms are 63-bit and real CDMs (MIMIC)
hold signed 64-bit ids; `numeric` is a float64, because DuckDB's NUMERIC keeps three decimals only.

image_occurrence and image_feature are of OHDSI's medical imaging extension (Park et al. 2024, J Imaging
Inform Med 37:899). Changed there: a series need not have a procedure; modality and site as the source wrote
them, and the number of instances, are added.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import ibis
import sqlglot as sg
import sqlglot.expressions as sge

CDM_VERSION = "v5.4"
CDM_VERSION_CONCEPT_ID = 756265  # "OMOP CDM Version 5.4.0"
LOCAL_CONCEPTS_ABOVE = 2_000_000_000  # OMOP's convention: ids above are a site's own
STARTER_VOCABULARY = "fedtwin-starter"  # the vocabulary_id of concepts that only our own words may name
IMAGING = ("image_occurrence", "image_feature")  # of OHDSI's imaging extension, not of CDM 5.4 itself
STARTER_MARK = 312327  # a concept that stands under that name where the starter vocabulary is


@dataclass(frozen=True, slots=True)
class Field:
    """One column: its OHDSI datatype, and whether every record must have it."""

    name: str
    datatype: str
    required: bool

    @property
    def ibis_type(self) -> ibis.expr.datatypes.DataType:
        """The column's type, the same on every engine."""
        name = "string" if self.datatype.startswith("varchar") else _IBIS[self.datatype]
        return ibis.dtype(name, nullable=not self.required)


_IBIS = {"integer": "int64", "numeric": "float64", "date": "date", "timestamp": "timestamp", "text": "string"}


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the CDM."""

    name: str
    fields: tuple[Field, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the fields in OHDSI's order."""
        return tuple(field.name for field in self.fields)

    def schema(self) -> ibis.Schema:
        """Return the Ibis schema; required fields are not nullable."""
        return ibis.schema({field.name: field.ibis_type for field in self.fields})

    def ddl(self, name: str | None = None, *, dialect: str = "duckdb") -> str:
        """Return the CREATE TABLE IF NOT EXISTS statement, under another `name` if given."""
        return _ddl(self, name or self.name, dialect)


@cache
def _ddl(table: Table, name: str, dialect: str) -> str:
    """Return a table's statement. Each store that is opened runs them all: putting them together is slow."""
    columns = table.schema().to_sqlglot_column_defs(dialect)
    body = sge.Schema(this=sg.to_identifier(name), expressions=columns)
    return str(sge.Create(kind="TABLE", this=body, exists=True).sql(dialect))


@dataclass(frozen=True, slots=True)
class EventTable:
    """How the records of a clinical table are addressed: the names of the columns that play each role."""

    name: str
    id: str
    concept: str
    start: str
    end: str | None
    type_concept: str
    source_value: str
    source_concept: str


EVENT_TABLES: MappingProxyType[str, EventTable] = MappingProxyType(
    {
        table.name: table
        for table in (
            EventTable(
                "condition_occurrence",
                "condition_occurrence_id",
                "condition_concept_id",
                "condition_start_date",
                "condition_end_date",
                "condition_type_concept_id",
                "condition_source_value",
                "condition_source_concept_id",
            ),
            EventTable(
                "drug_exposure",
                "drug_exposure_id",
                "drug_concept_id",
                "drug_exposure_start_date",
                "drug_exposure_end_date",
                "drug_type_concept_id",
                "drug_source_value",
                "drug_source_concept_id",
            ),
            EventTable(
                "procedure_occurrence",
                "procedure_occurrence_id",
                "procedure_concept_id",
                "procedure_date",
                "procedure_end_date",
                "procedure_type_concept_id",
                "procedure_source_value",
                "procedure_source_concept_id",
            ),
            EventTable(
                "measurement",
                "measurement_id",
                "measurement_concept_id",
                "measurement_date",
                None,
                "measurement_type_concept_id",
                "measurement_source_value",
                "measurement_source_concept_id",
            ),
            EventTable(
                "observation",
                "observation_id",
                "observation_concept_id",
                "observation_date",
                None,
                "observation_type_concept_id",
                "observation_source_value",
                "observation_source_concept_id",
            ),
        )
    }
)


@cache
def cdm_tables() -> MappingProxyType[str, Table]:
    """Return the tables by name."""
    found: dict[str, list[Field]] = {}
    text = resources.files("node.omop").joinpath("cdm54.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        found.setdefault(row["table"], []).append(
            Field(row["field"], row["datatype"], row["required"] == "yes")
        )
    return MappingProxyType({name: Table(name, tuple(fields)) for name, fields in found.items()})
