"""Ibis relations as the SQL of one database, and the SQL of each shape of question kept.

Ibis takes longer to compile a question than DuckDB to count a million events, so what has been compiled
once is kept by its shape, with stand-ins for concepts and values (node.queries.shape).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import ibis
from ibis.config import Config
from ibis.expr.types import Table

from node.queries.shape import Parameters, with_marks


class _SparkOptions(Config):  # type: ignore[misc]  # Ibis gives it no type
    """What Ibis asks of its options when it compiles a float for Spark.

    Its own are registered when its Spark back-end is loaded, which we compile without.
    """

    treat_nan_as_null: bool = False


_KEPT = 256  # shapes; a few kilobytes each


@dataclass(frozen=True, slots=True)
class Kept:
    """A compiled shape: its SQL, with a mark `$name` for each parameter, and the columns it returns."""

    sql: str
    columns: ibis.Schema


class Statements:
    """What one warehouse has compiled. May be shared by threads."""

    def __init__(self, dialect: str) -> None:
        if dialect == "pyspark" and ibis.options.pyspark is None:
            ibis.options.pyspark = _SparkOptions()
        self._dialect = dialect
        self._kept: dict[Hashable, Kept] = {}
        self._compiling = threading.Lock()

    def sql(self, expression: Table) -> str:
        """Return the SQL of a relation."""
        return str(ibis.to_sql(expression, dialect=self._dialect))

    def kept(self, shape: Hashable, build: Callable[[], Table], parameters: Parameters) -> Kept:
        """Return `build()` compiled, now or earlier, with the stand-ins named in `parameters` as marks.

        Raises: RuntimeError if what the SQL names is not exactly what there is to bind: never a wrong answer.
        """
        with self._compiling:
            if shape not in self._kept:
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
                expression = build()
                self._kept[shape] = Kept(with_marks(self.sql(expression), parameters), expression.schema())
            return self._kept[shape]
