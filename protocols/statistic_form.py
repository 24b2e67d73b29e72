"""Statistics read from JSON: every key known, every value in range, nothing left over."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from protocols.circe import CirceCohort, cohort_from_json
from protocols.cohort import Cohort, MalformedCohort, Window
from protocols.statistic import (
    KINDS,
    MAX_CELLS,
    Attrition,
    Breakdown,
    By,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    MalformedStatistic,
    Mean,
    OneValue,
    Statistic,
    Step,
    Survival,
    Which,
)

Word = TypeVar("Word", bound=StrEnum)


def parse(value: Any) -> Statistic:
    """Return the statistic that a JSON value describes.

    >>> parse({"kind": "survival", "outcome": {"index": {"kind": "condition", "concepts": [4306655]}},
    ...        "horizon_days": 365, "interval_days": 30}).intervals
    13

    Raises: MalformedStatistic, naming the key that is wrong, never a value.
    """
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise MalformedStatistic("kind", "an object with a 'kind'")
    reader = _READERS.get(value["kind"])
    if reader is None:
        raise MalformedStatistic("kind", f"one of {', '.join(KINDS)}")
    fields = _Fields(value)
    statistic = reader(fields)
    fields.end()
    return statistic


class _Fields:
    """The keys of one object, each read once; what is left over is refused."""

    def __init__(self, value: dict[str, Any]) -> None:
        self._left = {key: item for key, item in value.items() if key != "kind"}

    def has(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Any:
        if name not in self._left:
            raise MalformedStatistic(name, "is missing")
        return self._left.pop(name)

    def whole(self, name: str) -> int:
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise MalformedStatistic(name, "a whole number")
        return value

    def real(self, name: str) -> float:
        return _real(name, self.take(name))

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            raise MalformedStatistic(name, "true or false")
        return value

    def many(self, name: str) -> list[Any]:
        value = self.take(name)
        if not isinstance(value, list) or len(value) > MAX_CELLS:
            raise MalformedStatistic(name, f"a list of at most {MAX_CELLS}")
        return value

    def wholes(self, name: str) -> tuple[int, ...]:
        found = self.many(name)
        if any(isinstance(item, bool) or not isinstance(item, int) for item in found):
            raise MalformedStatistic(name, "whole numbers")
        return tuple(found)

    def cohort(self, name: str) -> Cohort | CirceCohort:
        try:
            return cohort_from_json(self.take(name))
        except MalformedCohort as error:
            raise MalformedStatistic(f"{name}.{error.path}", error.reason) from error

    def value(self) -> OneValue:
        window = None
        if self.has("window"):
            raw = self.take("window")
            if not isinstance(raw, dict) or set(raw) != {"from_days", "to_days"}:
                raise MalformedStatistic("window", "from_days and to_days")
            inner = _Fields(raw)
            try:
                window = Window(inner.whole("from_days"), inner.whole("to_days"))
            except MalformedStatistic as error:
                raise MalformedStatistic(f"window.{error.field}", error.reason) from error
            except ValueError as error:
                raise MalformedStatistic("window", str(error)) from error
        return OneValue(
            concept=self.whole("concept"),
            descendants=self.flag("descendants", default=True),
            unit=self.whole("unit") if self.has("unit") else None,
            which=_word("which", self.take("which"), Which) if self.has("which") else Which.LAST,
            window=window,
        )

    def end(self) -> None:
        for name in sorted(self._left):
            raise MalformedStatistic(name[:40] if name.isidentifier() else "$", "unknown key")


def _read_breakdown(fields: _Fields) -> Breakdown:
    return Breakdown(
        by=_word("by", fields.take("by"), By),
        edges=fields.wholes("edges") if fields.has("edges") else (),
        first_year=fields.whole("first_year") if fields.has("first_year") else None,
        last_year=fields.whole("last_year") if fields.has("last_year") else None,
        total=fields.flag("total", default=False),
    )


_READERS: dict[str, Callable[[_Fields], Statistic]] = {
    "count": lambda fields: Count(),
    "breakdown": _read_breakdown,
    "histogram": lambda fields: Histogram(
        fields.value(), tuple(_real("edges", edge) for edge in fields.many("edges"))
    ),
    "mean": lambda fields: Mean(fields.value(), fields.real("lower"), fields.real("upper")),
    "contingency": lambda fields: Contingency(fields.cohort("other")),
    "incidence": lambda fields: Incidence(
        fields.cohort("outcome"),
        fields.whole("first_year"),
        fields.whole("last_year"),
        _word("step", fields.take("step"), Step) if fields.has("step") else Step.YEAR,
    ),
    "survival": lambda fields: Survival(
        fields.cohort("outcome"), fields.whole("horizon_days"), fields.whole("interval_days")
    ),
    "attrition": lambda fields: Attrition(fields.wholes("order") if fields.has("order") else ()),
    "feasibility": lambda fields: Feasibility(fields.whole("at_least")),
}


def _word(name: str, value: Any, words: type[Word]) -> Word:
    try:
        return words(value)
    except ValueError:
        raise MalformedStatistic(name, f"one of {', '.join(words)}") from None


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedStatistic(name, "a number")
    try:
        return float(value)
    except OverflowError:
        raise MalformedStatistic(name, "a number that a float can hold") from None
