"""The exact number of persons in a cohort on one database: for the hospital's own staff, never for the wire.

Guarantee: the database is only read, by the engine that answers questions as well (node.queries.engine).
"""

from __future__ import annotations

from contextlib import closing

from node.queries.engine import CdmEngine
from node.queries.limits import Limits
from node.queries.warehouse import open_warehouse
from protocols.circe import CirceCohort
from protocols.cohort import Cohort


def count(cohort: Cohort | CirceCohort, store: str, *, schema: str | None, limits: Limits) -> int:
    """Return the exact number of persons of the cohort in one store.

    Args:
        store: the path of a DuckDB file, `duckdb:///PATH` or `postgresql://…` (node.queries.warehouse).
        schema: where the CDM's tables lie; None looks for `person` in `cdm`, then `main` (`public`).
    Raises: UnknownStore, NotAStore, StoreBusy, NoSuchTable, NotTheCdm, NoVocabulary; Refused(DEADLINE);
        OutOfMemory; MalformedCohort if Circe has no meaning for the definition.
    """
    with (
        closing(open_warehouse(store, schema=schema, limits=limits)) as warehouse,
        closing(warehouse.engine(limits)) as engine,
    ):
        return counted(cohort, engine)


def counted(cohort: Cohort | CirceCohort, engine: CdmEngine) -> int:
    """Return the exact number of persons of the cohort. Raises: as `CdmEngine.members`."""
    with engine.members(cohort) as members:
        return int(engine.rows(members.aggregate(persons=members.count()))["persons"][0].as_py())
