"""Where questions are asked: one hospital's CDM, on whichever database it lies.

A `Warehouse` is opened once and asked by many threads; each question gets an `CdmEngine` of its own from it,
uses it in one thread, and closes it. Relations are unbound Ibis tables by name: an engine compiles them to the
SQL of its database when their rows are asked for.

Guarantee, of each implementation: a question only reads the CDM. What Circe's statements write in between are
temporary tables that no other question sees, gone when the engine is closed. A question ends at its time
limit, or soon after `interrupt`, with Refused(DEADLINE).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import ibis
import pyarrow as pa
from ibis.expr.types import Table

from node.omop.errors import NoSuchTable
from node.omop.tables import cdm_tables
from node.queries.limits import Limits
from node.queries.shape import Parameters
from protocols.circe import CirceCohort
from protocols.cohort import Cohort


class CdmEngine(Protocol):
    """One question's way into the CDM. Every method but `interrupt` belongs to one thread."""

    def table(self, name: str) -> Table:
        """Return a table of the CDM as an unbound relation with the types of OMOP CDM 5.4.

        Raises: NoSuchTable if the store lacks it or the CDM has none of this name.
        """
        ...

    def has(self, name: str) -> bool:
        """Return whether `table` would return one."""
        ...

    def members(self, cohort: Cohort | CirceCohort) -> AbstractContextManager[Table]:
        """Yield the cohort as a relation (person_id int64, index_date date), each person once.

        For Circe the index date is the person's earliest cohort_start_date, and the relation a temporary
        table, made on entering and dropped on leaving; for our own form it is a lazy relation. Two may be
        open at the same time.

        Raises: NoSuchTable, NotTheCdm, NoVocabulary; MalformedCohort if Circe has no meaning for the
            definition; Refused(DEADLINE); OutOfMemory.
        """
        ...

    def passed_rules(self, cohort: CirceCohort) -> AbstractContextManager[Table]:
        """Yield (person_id int64, rules int64) for each person with a qualifying primary event, once.

        `rules` is the largest k such that one and the same event of the person satisfies the first k
        inclusion rules. End strategy and censor window play no part. Raises: as `members`.
        """
        ...

    def rows(self, expression: Table) -> pa.Table:
        """Return the rows of a relation made from this engine's, with the relation's own types.

        Raises: NotTheCdm, Refused(DEADLINE), OutOfMemory.
        """
        ...

    def rows_of_shape(self, shape: Hashable, build: Callable[[], Table], parameters: Parameters) -> pa.Table:
        """Return the rows of `build()`, in which stand-ins (node.queries.shape) take the place of `parameters`.

        The SQL is compiled when a shape is first seen and kept by the warehouse: `shape` must say all
        that `build` depends on but the parameters. Raises: as `rows`.
        """
        ...

    def interrupt(self) -> None:
        """Make what runs now, and whatever is asked later, fail soon. From any thread."""
        ...

    def epoch(self) -> str:
        """Return a name for the present content of the CDM (as `Warehouse.epoch`)."""
        ...

    def close(self) -> None:
        """End the question: drop what it made, give its connection back."""
        ...


class Warehouse(Protocol):
    """One hospital's CDM. May be shared by threads."""

    def engine(self, limits: Limits) -> CdmEngine:
        """Return an engine for one question; its time begins now. Raises: StoreError."""
        ...

    def epoch(self) -> str:
        """Return a name for the present content: it changes when the data change, as far as can be seen."""
        ...

    def close(self) -> None:
        """Close all connections; questions that still run fail."""
        ...


@dataclass(frozen=True, slots=True)
class NamedTables:
    """The tables of a CDM by name: relations that can be compiled for a database, not connected to one.

    `schema`, of the database `catalog` where there are several, is what the SQL names; `present` are the
    tables found there.
    """

    schema: str
    present: frozenset[str]
    catalog: str | None = None

    def table(self, name: str) -> Table:
        """Return a table. Raises: NoSuchTable."""
        if not self.has(name):
            raise NoSuchTable(name)
        return ibis.table(cdm_tables()[name].schema(), name=name, database=self.schema, catalog=self.catalog)

    def has(self, name: str) -> bool:
        """Return whether there is a table of this name."""
        return name in self.present and name in cdm_tables()
