"""The name of a database that holds a CDM, as a configuration or a command gives it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from urllib.parse import parse_qs, urlsplit

from node.omop.errors import PasswordInUrl, UnknownStore


class StoreKind(StrEnum):
    """What kind of database it is."""

    DUCKDB = "duckdb"
    POSTGRESQL = "postgresql"
    SPARK = "spark"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A URL without a password; `text` is what its own driver takes: DuckDB a path, Spark a master."""

    kind: StoreKind
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the store that `text` names: a path, `duckdb:///PATH`, `postgresql://…` or `spark:MASTER`.

        >>> StoreUrl.parse("duckdb:///data/cdm.duckdb")
        StoreUrl(kind=<StoreKind.DUCKDB: 'duckdb'>, text='/data/cdm.duckdb')

        Raises: UnknownStore; PasswordInUrl, because command lines and configuration files are read by others.
        """
        if text.startswith("spark:"):
            rest = text.removeprefix("spark:")
            if not rest:
                raise UnknownStore
            # spark://host:7077 is the name of a master itself
            return cls(StoreKind.SPARK, text if rest.startswith("//") else rest)
        scheme, found, rest = text.partition("://")
        if not found:
            scheme, rest = "duckdb", text
        if scheme == "duckdb" and rest:
            return cls(StoreKind.DUCKDB, rest)
        if scheme in ("postgresql", "postgres"):
            try:
                parts = urlsplit(text)
                secret = bool(parts.password) or "password" in parse_qs(parts.query, keep_blank_values=True)
            except ValueError:
                raise UnknownStore from None
            if secret:
                raise PasswordInUrl
            return cls(StoreKind.POSTGRESQL, text)
        raise UnknownStore
