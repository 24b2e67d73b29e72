"""Questions on a Spark warehouse.

Guarantee: Spark is given queries only, which is checked on each, and no statement that writes: what Circe
makes in between are temporary views of one session, computed once and kept on the executors for as long as
they are needed. Texts and numbers of a question are bound as parameters.

Spark has one context in a process, so a process asks one master.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import ibis
import pyarrow as pa
from ibis.expr.types import Table
from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from node.omop.errors import NoSuchTable, NotAStore, NotTheCdm
from node.omop.tables import cdm_tables
from node.queries.circe import Dialect, Statement, only_query
from node.queries.engine import CdmEngine, NamedTables
from node.queries.limits import Limits, Stopper
from node.queries.shape import Parameters
from node.queries.statements import Statements
from protocols.refusal import RefusalCode, Refused

SCHEMAS = ("cdm", "default")  # databases of Spark's catalogue in which a CDM is looked for
_CANCEL_AGAIN_S = 0.2
_SETTINGS = {
    "spark.ui.enabled": "false",  # nothing listens
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
_MARK = re.compile(r"\$(n?\d+)")
_QUERY = re.compile(r"\s*CREATE TEMP TABLE \w+\s+AS\s(.*)", re.DOTALL | re.IGNORECASE)
_INSERT = re.compile(r"\s*INSERT INTO \w+\s*\(([^)]*)\)\s*(.*)", re.DOTALL | re.IGNORECASE)


class SparkWarehouse:
    """The CDM in one database of Spark's catalogue."""

    def __init__(self, spark: SparkSession, tables: NamedTables, *, data_version: int) -> None:
        """Use `open`."""
        self._spark = spark
        self._tables = tables
        self._data_version = data_version
        self._statements = Statements("pyspark")

    @classmethod
    def open(cls, master: str, *, schema: str | None, data_version: int = 0) -> Self:
        """Start or join this process's Spark; its catalogue and memory are as `spark-defaults.conf` says.

        Args:
            master: as Spark names it: `local[2]`, `spark://host:7077`, `yarn`.
            schema: the database of the CDM; None looks for `person` in `cdm`, then `default`.
        Raises: NotAStore if Spark does not start; NoSuchTable if there is no `person`.
        """
        builder = SparkSession.builder.master(master).appName("fedtwin")
        for key, value in _SETTINGS.items():
            builder = builder.config(key, value)
        try:
            spark = builder.getOrCreate()
        except (PySparkException, Py4JError, OSError):
            raise NotAStore("Spark does not start here: it needs Java 17 or 21, and its master") from None
        return cls(spark, _found(spark, schema), data_version=data_version)

    def engine(self, limits: Limits) -> CdmEngine:
        """Return an engine for one question."""
        session = _Session(self._spark.newSession(), self._tables, time_s=limits.time_s)
        return CdmEngine(session, self._statements, epoch=self.epoch)

    def epoch(self) -> str:
        """Return a name for the present content: the names of the tables' files, or else numbers of rows."""
        digest = hashlib.sha256()
        for name in sorted(self._tables.present & cdm_tables().keys()):
            table = self._spark.table(f"{_place(self._tables)}.{name}")
            files = sorted(table.inputFiles()) or [str(table.count())]
            digest.update("\n".join((name, *files, "")).encode())
        return f"{digest.hexdigest()[:32]}-{self._data_version}"

    def close(self) -> None:
        """Leave Spark to whoever else of this process uses it; it ends with the process."""


class _Session:
    """One question (node.queries.engine.Session)."""

    dialect = Dialect.SPARK

    def __init__(self, spark: SparkSession, tables: NamedTables, *, time_s: float) -> None:
        self._spark = spark
        self.tables = tables
        # Spark 4 keeps constraints of a checkpoint under names that are gone, and fails on a UNION of two
        spark.conf.set("spark.sql.constraintPropagation.enabled", "false")
        self._views: dict[str, DataFrame] = {}
        self._group = f"fedtwin-{uuid.uuid4().hex}"
        context = spark.sparkContext
        self._stopper = Stopper(
            lambda: context.cancelJobGroup(self._group), after_s=time_s, again_s=_CANCEL_AGAIN_S
        )

    @property
    def place(self) -> str:
        """The database, quoted."""
        return _place(self.tables)

    def temporary(self, name: str, columns: dict[str, str]) -> Table:
        """Return a temporary view as a relation."""
        return ibis.table(columns, name=name)

    def run(self, statement: Statement) -> None:
        """Do to a temporary view what the statement would do to a temporary table."""
        with self._errors():
            if statement.verb == "DROP TABLE":
                self._dropped(statement.target)
            elif statement.verb == "INSERT INTO":
                found = _INSERT.fullmatch(statement.sql)
                assert found is not None, "an INSERT names its columns"
                rows = self._asked(found[2], statement.texts).toDF(*re.findall(r"\w+", found[1]))
                before = self._views.get(statement.target)
                self._kept(statement.target, rows if before is None else before.unionAll(rows))
            elif found := _QUERY.fullmatch(statement.sql):
                self._kept(statement.target, self._asked(found[1], statement.texts))
            # what is left makes an empty table, which the INSERT defines, or gathers statistics

    def fetched(self, sql: str, parameters: Parameters, columns: ibis.Schema) -> pa.Table:
        """Return the rows of a query."""
        with self._errors():
            found = self._spark.sql(only_query(_MARK.sub(r":\1", sql)), args=dict(parameters)).toArrow()
        return found.cast(columns.to_pyarrow())

    def interrupt(self) -> None:
        """Make what runs now, and whatever is asked later, fail soon."""
        self._stopper.stop()

    def close(self) -> None:
        """Forget the views."""
        self._stopper.close()
        for name in list(self._views):
            self._dropped(name)

    def _asked(self, query: str, texts: tuple[str, ...]) -> DataFrame:
        named = {f"t{place}": text for place, text in enumerate(texts, start=1)}
        return self._spark.sql(only_query(_MARK.sub(r":t\1", query)), args=named)

    def _kept(self, name: str, rows: DataFrame) -> None:
        rows = rows.localCheckpoint()  # computed now: a plan of all steps in one takes Spark long to make
        rows.createOrReplaceTempView(name)
        self._views[name] = rows

    def _dropped(self, name: str) -> None:
        self._spark.catalog.dropTempView(name)
        self._views.pop(name, None)  # Spark frees the rows once nothing refers to them

    @contextmanager
    def _errors(self) -> Iterator[None]:
        if not self._stopper.left_s:
            raise Refused(RefusalCode.DEADLINE)
        self._spark.sparkContext.setJobGroup(self._group, "fedtwin", interruptOnCancel=True)
        try:
            yield
        except AnalysisException:
            raise NotTheCdm from None
        except (PySparkException, Py4JError):
            if not self._stopper.left_s:
                raise Refused(RefusalCode.DEADLINE) from None
            raise


def _found(spark: SparkSession, asked: str | None) -> NamedTables:
    """The database that holds `person`, and the names of its tables and views."""
    for schema in SCHEMAS if asked is None else (asked,):
        if not spark.catalog.databaseExists(schema):
            continue
        listed: list[Any] = spark.catalog.listTables(schema)
        present = frozenset(str(table.name).lower() for table in listed)
        if "person" in present:
            return NamedTables(schema, present)
    raise NoSuchTable("person")


def _place(tables: NamedTables) -> str:
    return "`" + tables.schema.replace("`", "``") + "`"
