"""A language as data: its months, titles, labels and the rest that recognizers read."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Language:
    """The tables of one language."""

    code: str
    tables: dict[str, list[str]] = field(repr=False, hash=False, compare=False)

    def words(self, table: str) -> list[str]:
        """Return a table; one that the language lacks is empty."""
        return self.tables.get(table, [])

    def either(self, *tables: str) -> str:
        """Return a regular expression for one word or phrase of the tables, longest first."""
        words = {word for table in tables for word in self.words(table)}
        return "|".join(
            re.escape(word).replace(r"\ ", r"\s+") for word in sorted(words, key=lambda w: (-len(w), w))
        )


@cache
def language(code: str) -> Language:
    """Return the language of a code.

    Raises: ValueError if there are no tables for it.
    """
    folder = resources.files("deid.lexicon")
    file = folder.joinpath(f"{code}.toml")
    if not code.isalpha() or not file.is_file():
        raise ValueError(f"there are no tables of the language {code!r}")
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    shared = tomllib.loads(folder.joinpath("shared.toml").read_text(encoding="utf-8"))
    return Language(code, {**shared, **tables})
