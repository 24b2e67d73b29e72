"""Where questions are asked: one hospital's CDM, on whichever database it lies.

A `Warehouse` is opened once and asked by many threads; each question gets a `CdmEngine` of its own from it,
uses it in one thread, and closes it. Relations are unbound Ibis tables by name: they are compiled to the SQL
of the database when their rows are asked for.

Guarantee, of each database: a question only reads the CDM. What Circe's statements write in between are
temporary tables that no other question sees, gone when the engine is closed. A question ends at its time
limit, or soon after `interrupt`, with Refused(DEADLINE).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import ibis
import pyarrow as pa
from ibis.expr.types import Table

from node.omop.errors import NoSuchTable, NoVocabulary
from node.omop.tables import LOCAL_CONCEPTS_ABOVE, STARTER_MARK, STARTER_VOCABULARY, cdm_tables
from node.queries import circe
from node.queries import cohort as cohorts
from node.queries.limits import Limits
from node.queries.shape import Parameters
from node.queries.statements import Statements
from protocols.circe import CirceCohort
from protocols.cohort import Cohort

_MEMBERS = {"person_id": "!int64", "index_date": "!date"}
_PASSED = {"person_id": "!int64", "rules": "!int64"}


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


class Session(Protocol):
    """One question's connection to one kind of database. All but `interrupt` belongs to one thread.

    Each call raises Refused(DEADLINE) once the time is over or `interrupt` was called, OutOfMemory, and
    NotTheCdm if a column is missing or of another type; never a text of the database.
    """

    @property
    def dialect(self) -> circe.Dialect:
        """What Circe calls the database."""
        ...

    @property
    def tables(self) -> NamedTables:
        """The CDM's tables."""
        ...

    @property
    def place(self) -> str:
        """The CDM's schema as it stands in SQL."""
        ...

    def temporary(self, name: str, columns: dict[str, str]) -> Table:
        """Return a temporary table that `run` has made, as a relation."""
        ...

    def run(self, statement: circe.Statement) -> None:
        """Execute what writes a temporary table."""
        ...

    def fetched(self, sql: str, parameters: Parameters, columns: ibis.Schema) -> pa.Table:
        """Return the rows of a query, marks `$name` bound to `parameters`, as columns of these types."""
        ...

    def interrupt(self) -> None:
        """Make what runs now, and whatever is asked later, fail soon. From any thread."""
        ...

    def close(self) -> None:
        """Undo what was written, and give the connection back."""
        ...


@dataclass(frozen=True, slots=True)
class NamedTables:
    """The tables of a CDM by name: relations that can be compiled for a database, not connected to one.

    `schema`, of the database `catalog` where there are several, is what the SQL names; `present` are the
    tables found there, in lower case.
    """

    schema: str
    present: frozenset[str]
    catalog: str | None = None

    def table(self, name: str) -> Table:
        """Return a table with the types of OMOP CDM 5.4. Raises: NoSuchTable."""
        if not self.has(name):
            raise NoSuchTable(name)
        columns = cdm_tables()[name].schema()
        return ibis.table(columns, name=name, database=self.schema, catalog=self.catalog)

    def has(self, name: str) -> bool:
        """Return whether there is a table of this name, and the CDM knows it."""
        return name in self.present and name in cdm_tables()


class CdmEngine:
    """One question's way into the CDM. Every method but `interrupt` belongs to one thread."""

    def __init__(self, session: Session, statements: Statements, *, epoch: Callable[[], str]) -> None:
        """Use `Warehouse.engine`."""
        self._session = session
        self._statements = statements
        self._epoch = epoch
        self._made = 0

    def table(self, name: str) -> Table:
        """Return a table of the CDM as an unbound relation. Raises: NoSuchTable."""
        return self._session.tables.table(name)

    def has(self, name: str) -> bool:
        """Return whether `table` would return one."""
        return self._session.tables.has(name)

    def has_vocabulary(self) -> bool:
        """Return whether there are concepts but a site's own, without which no concept set resolves.

        The starter vocabulary does not count: without a hierarchy a concept set misses what lies below.
        """
        if not self.has("concept"):
            return False
        concepts = self.table("concept").select("concept_id", "vocabulary_id")
        standard = concepts.filter(concepts.concept_id.between(1, LOCAL_CONCEPTS_ABOVE))
        starter = concepts.filter(
            (concepts.concept_id == STARTER_MARK) & (concepts.vocabulary_id == STARTER_VOCABULARY)
        )
        return bool(self.rows(standard.limit(1)).num_rows) and not self.rows(starter.limit(1)).num_rows

    @contextmanager
    def members(self, cohort: Cohort | CirceCohort) -> Iterator[Table]:
        """Yield the cohort as a relation (person_id int64, index_date date), each person once.

        For Circe the index date is the person's earliest cohort_start_date, and the relation a temporary
        table, made on entering and dropped on leaving; for our own form it is a lazy relation. Two may be
        open at the same time.

        Raises: NoSuchTable, NotTheCdm, NoVocabulary; MalformedCohort if Circe has no meaning for the
            definition; Refused(DEADLINE); OutOfMemory.
        """
        if isinstance(cohort, CirceCohort):
            with self._filled(self._program(cohort).members, columns=_MEMBERS) as made:
                yield made
        else:
            yield cohorts.indexed_persons(cohort, self)

    @contextmanager
    def passed_rules(self, cohort: CirceCohort) -> Iterator[Table]:
        """Yield (person_id int64, rules int64) for each person with a qualifying primary event, once.

        `rules` is the largest k such that one and the same event of the person satisfies the first k
        inclusion rules. End strategy and censor window play no part. Raises: as `members`.
        """
        with self._filled(self._program(cohort).passed_rules, columns=_PASSED) as made:
            yield made

    def rows(self, expression: Table) -> pa.Table:
        """Return the rows of a relation made from this engine's, with the relation's own types.

        Raises: NotTheCdm, Refused(DEADLINE), OutOfMemory.
        """
        return self._session.fetched(self._statements.sql(expression), {}, expression.schema())

    def rows_of_shape(self, shape: Hashable, build: Callable[[], Table], parameters: Parameters) -> pa.Table:
        """Return the rows of `build()`, in which stand-ins (node.queries.shape) stand for `parameters`.

        The SQL is compiled when a shape is first seen, and kept by the warehouse: `shape` must say all that
        `build` depends on but the parameters and the tables that are there. Raises: as `rows`.
        """
        kept = self._statements.kept((self._session.tables, shape), build, parameters)
        return self._session.fetched(kept.sql, parameters, kept.columns)

    def interrupt(self) -> None:
        """Make what runs now, and whatever is asked later, fail soon. From any thread."""
        self._session.interrupt()

    def epoch(self) -> str:
        """Return a name for the present content of the CDM (as `Warehouse.epoch`)."""
        return self._epoch()

    def close(self) -> None:
        """End the question: drop what it made, give its connection back."""
        self._session.close()

    def _program(self, cohort: CirceCohort) -> circe.Program:
        """The definition's statements, after checking that this CDM has what they read."""
        program = circe.program(cohort, self._session.dialect)
        for name in sorted(program.tables - self._session.tables.present):
            raise NoSuchTable(name)  # the first of them
        if "concept" in program.tables and not self.has_vocabulary():
            raise NoVocabulary
        return program

    @contextmanager
    def _filled(
        self, steps: Callable[..., Iterator[circe.Statement]], *, columns: dict[str, str]
    ) -> Iterator[Table]:
        """Run the steps into a temporary table of these columns, dropped at the end."""
        self._made += 1
        name = f"fedtwin_made_{self._made}"
        for statement in steps(self._session.place, into=name):
            self._session.run(statement)
        yield self._session.temporary(name, columns)
        self._session.run(circe.dropping(name))
