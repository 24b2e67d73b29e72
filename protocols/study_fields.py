"""Reading the keys of a study one by one: whatever nobody asked for is refused, with its path."""

from __future__ import annotations

import math
import re
import tomllib
from typing import Any

MAX_BYTES = 262_144  # hundreds of features fit
MAX_MAGNITUDE = 1e15  # values beyond it cannot be compared exactly as floats

_SAFE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_NOTHING: Any = object()


class MalformedStudy(ValueError):
    """The plan breaks a rule. `path` names the key (`features[2].range`), never a value."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read_toml(toml: bytes) -> dict[str, Any]:
    """Return what a file holds. Raises: MalformedStudy if it is too long, or no TOML."""
    if len(toml) > MAX_BYTES:
        raise MalformedStudy("$", f"at most {MAX_BYTES} bytes")
    try:
        return tomllib.loads(toml.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedStudy("$", "is not TOML") from error


class Fields:
    """One table of the file. `take` each key that has a meaning, then `done` refuses the rest."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise MalformedStudy(path, "must be a table")
        self.path = path
        self._left = dict(value)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, default: Any = _NOTHING) -> tuple[Any, str]:
        """Return the value and its path. Raises: MalformedStudy if it is missing and has no default."""
        path = self._path(key)
        value = self._left.pop(key, default)
        if value is _NOTHING:
            raise MalformedStudy(path, "is missing")
        return value, path

    def is_(self, key: str, value: str) -> bool:
        """Whether the key is there and says just this; it is still to be taken."""
        return self._left.get(key) == value

    def section(self, key: str) -> Fields:
        """Return the table under `key`."""
        return Fields(*self.take(key))

    def done(self) -> None:
        """Refuse every key that nobody took."""
        for key in self._left:
            raise MalformedStudy(self._path(key if _SAFE_KEY.fullmatch(str(key)) else "<key>"), "unknown key")

    def _path(self, key: str) -> str:
        return key if self.path == "$" else f"{self.path}.{key}"


def checked_int(value: Any, path: str, *, low: int, high: int) -> int:
    """Return `value` if it is a whole number in the closed range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedStudy(path, "must be a whole number")
    if not low <= value <= high:
        raise MalformedStudy(path, f"must be {low} to {high}")
    return value


def checked_float(
    value: Any,
    path: str,
    *,
    low: float = -MAX_MAGNITUDE,
    high: float = MAX_MAGNITUDE,
    above: float | None = None,
) -> float:
    """Return `value` as a float if it is a finite number in range (strictly above `above`, if given)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedStudy(path, "must be a number")
    if not abs(value) <= MAX_MAGNITUDE or not math.isfinite(value):  # first: a long integer overflows float()
        raise MalformedStudy(path, f"must be finite and at most {MAX_MAGNITUDE:g}")
    if above is not None and not value > above:
        raise MalformedStudy(path, f"must be above {above:g}")
    if not low <= value <= high:
        raise MalformedStudy(path, f"must be {low:g} to {high:g}")
    return float(value)


def checked_flag(value: Any, path: str) -> bool:
    """Return `value` if it is true or false."""
    if not isinstance(value, bool):
        raise MalformedStudy(path, "must be true or false")
    return value


def checked_list(value: Any, path: str, *, at_most: int) -> list[Any]:
    """Return `value` if it is a list that is not too long."""
    if not isinstance(value, list | tuple):
        raise MalformedStudy(path, "must be a list")
    if len(value) > at_most:
        raise MalformedStudy(path, f"at most {at_most} entries")
    return list(value)


def checked_name(value: Any, path: str, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise MalformedStudy(path, f"must be one of {', '.join(allowed)}")
    return value


def checked_text(value: Any, path: str, pattern: re.Pattern[str]) -> str:
    """Return `value` if it is text of this form."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise MalformedStudy(path, "must be lower-case letters, digits, '.', '_' or '-', at most 64")
    return value
