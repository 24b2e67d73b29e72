"""A table of a TOML file that knows its file and key, and does not forgive a key that nobody asked for."""

from __future__ import annotations

import math
from datetime import date, datetime
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from node.ingest.errors import MalformedMapping

REQUIRED: Any = object()
Choice = TypeVar("Choice", bound=StrEnum)
MAX_CONCEPT_ID = 2**31 - 1  # OMOP concept ids are 32-bit


class Section:
    """Read each key with the method of its type, then call `done`: what is left is an error."""

    def __init__(self, file: str, path: str, value: Any) -> None:
        self._file = file
        self._path = path
        if not isinstance(value, dict):
            raise MalformedMapping(file, path or "$", "must be a table")
        self._left: dict[str, Any] = dict(value)

    def fail(self, key: str, reason: str) -> NoReturn:
        """Raise MalformedMapping for a key of this table."""
        raise MalformedMapping(self._file, f"{self._path}.{key}" if self._path else key, reason)

    def done(self) -> None:
        """Refuse what was not read."""
        for key in self._left:
            self.fail(key, "unknown key")

    def _take(self, key: str, default: Any) -> Any:
        if key in self._left:
            return self._left.pop(key)
        if default is REQUIRED:
            self.fail(key, "is missing")
        return default

    def section(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a sub-table, or the default."""
        value = self._take(key, default)
        return value if value is default else Section(self._file, self._at(key), value)

    def sections(self, key: str) -> list[Section]:
        """Return an array of tables, empty if absent."""
        value = self._take(key, [])
        if not isinstance(value, list):
            self.fail(key, "must be an array of tables")
        return [Section(self._file, f"{self._at(key)}[{place}]", item) for place, item in enumerate(value)]

    def table(self, key: str) -> dict[str, Any]:
        """Return a plain table, empty if absent."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            self.fail(key, "must be a table")
        return value

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a string, or the default."""
        value = self._take(key, default)
        if value is not default and not isinstance(value, str):
            self.fail(key, "must be a string")
        return value

    def texts(self, key: str, default: Any = REQUIRED) -> tuple[str, ...]:
        """Return a list of strings, or the default."""
        value = self._take(key, default)
        if value is default:
            return tuple(value)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(key, "must be a list of strings")
        return tuple(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean, or the default."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            self.fail(key, "must be true or false")
        return value

    def integer(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a whole number, or the default."""
        value = self._take(key, default)
        if value is not default and (isinstance(value, bool) or not isinstance(value, int)):
            self.fail(key, "must be a whole number")
        return value

    def number(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a finite number, or the default."""
        value = self._take(key, default)
        return value if value is default else self._finite(key, value)

    def interval(self, key: str, default: Any) -> Any:
        """Return a pair of numbers in order, or the default."""
        value = self._take(key, default)
        if value is default:
            return value
        if not isinstance(value, list) or len(value) != 2:
            self.fail(key, "must be [lowest, highest]")
        low, high = (self._finite(key, end) for end in value)
        if low > high:
            self.fail(key, "the lowest is above the highest")
        return (low, high)

    def day(self, key: str, default: Any) -> Any:
        """Return a date, or the default."""
        value = self._take(key, default)
        if value is not default and (isinstance(value, datetime) or not isinstance(value, date)):
            self.fail(key, "must be a date, written without quotes: 1988-07-01")
        return value

    def choice(self, key: str, kind: type[Choice], default: Choice) -> Choice:
        """Return a member of an enumeration, or the default."""
        value = self._take(key, default)
        if value not in set(kind):
            self.fail(key, f"one of {', '.join(kind)}")
        return kind(value)

    def concept(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a concept id, or the default."""
        value = self.integer(key, default)
        if value is not default and not 0 <= value <= MAX_CONCEPT_ID:
            self.fail(key, f"a concept id is 0 to {MAX_CONCEPT_ID}")
        return value

    def concept_map(self, key: str, default: Any = REQUIRED) -> dict[str, int]:
        """Return a table of code to concept id."""
        value = self._take(key, default)
        if not isinstance(value, dict):
            self.fail(key, "must be a table of code = concept id")
        section = Section(self._file, self._at(key), value)
        return {code: section.concept(code) for code in value}

    def number_map(self, key: str) -> dict[str, float]:
        """Return a table of code to number, empty if absent."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            self.fail(key, "must be a table of code = number")
        return {code: self._finite(key, item) for code, item in value.items()}

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _finite(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fail(key, "must be a finite number")
        return float(value)
