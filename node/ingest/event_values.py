"""The values that the rows of a batch hold for one event of the mapping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from deid.errors import NotRedacted
from node.ingest.batch import Batch
from node.ingest.mapping_parts import Codes, Event, Kind

SOURCE_VALUE_CHARACTERS = 50  # OMOP's width of a source value
Redact = Callable[[str], str]


@dataclass(slots=True)
class Values:
    """Which rows have such a record and what it holds; only the part that the event's kind has is set."""

    mask: np.ndarray
    spoils_row: np.ndarray
    number: np.ndarray | None = None
    place: np.ndarray | None = None  # of the category among `codes`
    codes: list[str] = field(default_factory=list)
    text: pa.Array | None = None

    def fields(self, event: Event, there: np.ndarray) -> dict[str, pa.Array]:
        """Return the value columns of the records of the rows `there`."""
        if self.number is not None:
            return {"value_as_number": pa.array(self.number[there])}
        if self.text is not None:
            return {"value_as_string": self.text.take(pa.array(there))}
        if self.place is None:
            return {}
        place = self.place[there]
        numbers = np.array([event.values.get(code, np.nan) for code in self.codes])[place]
        concepts = np.array([event.value_concepts.get(code, 0) for code in self.codes], dtype=np.int64)[place]
        return {
            "value_as_number": pa.array(numbers, mask=np.isnan(numbers)),
            "value_as_concept_id": pa.array(concepts, mask=concepts == 0),
            "value_source_value": source_values(self.codes, place),
        }


def values_of(event: Event, batch: Batch, *, redact: Redact) -> Values:
    """Return the values of one event; what cannot be used goes to the batch's quarantine."""
    asked = batch.alive.copy()
    if event.when is not None:
        when = batch.column(event.when.column)
        asked &= when.spread(when.look_up(event.when.values, as_numbers=True) >= 0)
    asked &= ~batch.is_missing(event.column, event.missing)
    values = Values(asked, np.zeros(len(batch), dtype=bool))
    if event.kind is Kind.NUMBER:
        _number(event, batch, values)
    elif event.kind is Kind.CATEGORY:
        _category(event, batch, values)
    elif event.kind is Kind.PRESENT:
        _present(event, batch, values)
    else:
        _text(event, batch, values, redact)
    if event.concept is not None:
        no_code = batch.is_missing(event.concept.column)
        batch.turn_away(values.mask & no_code, event.concept.column, "missing-code")
        values.mask &= ~no_code
    if event.unit is not None:
        units = batch.column(event.unit.column)
        known = units.spread(units.look_up(event.unit.map, as_numbers=False) >= 0)
        strange = values.mask & ~known & ~batch.is_missing(event.unit.column)
        batch.turn_away(strange, event.unit.column, "unknown-unit")
        values.mask &= ~strange
    return values


def coded(codes: Codes, batch: Batch, there: np.ndarray, *, as_numbers: bool) -> tuple[np.ndarray, pa.Array]:
    """Return the concept id (0 if unmapped) and the code itself (none if unmapped: it could be anything)."""
    column = batch.column(codes.column)
    places = column.look_up(codes.map, as_numbers=as_numbers)
    ids = np.array([*codes.map.values(), 0], dtype=np.int64)[places]  # place -1 is the last
    return column.spread(ids)[there], source_values(list(codes.map), column.spread(places)[there])


def source_values(codes: list[str], places: np.ndarray) -> pa.Array:
    """Return the codes at `places`, none where a place is -1."""
    cut = pa.array([code[:SOURCE_VALUE_CHARACTERS] for code in codes], pa.string())
    return cut.take(pa.array(places, mask=places < 0))


def _number(event: Event, batch: Batch, values: Values) -> None:
    numbers = batch.numbers(event.column) * event.scale
    batch.turn_away(values.mask & np.isnan(numbers), event.column, "not-a-number")
    values.mask &= ~np.isnan(numbers)
    values.number = numbers
    if event.range is not None:
        low, high = event.range
        outside = values.mask & ~((numbers >= low) & (numbers <= high))
        batch.turn_away(outside, event.column, "out-of-range", whole_row=event.whole_row)
        if event.whole_row:
            values.spoils_row = outside
        values.mask &= ~outside


def _category(event: Event, batch: Batch, values: Values) -> None:
    column = batch.column(event.column)
    values.codes = list(dict.fromkeys((*event.values, *event.value_concepts)))
    values.place = column.spread(column.look_up(values.codes, as_numbers=True))
    batch.turn_away(values.mask & (values.place < 0), event.column, "unmapped-value")
    values.mask &= values.place >= 0


def _present(event: Event, batch: Batch, values: Values) -> None:
    if event.above is not None:
        numbers = batch.numbers(event.column)
        batch.turn_away(values.mask & np.isnan(numbers), event.column, "not-a-number")
        values.mask &= numbers > event.above
    elif event.present:
        column = batch.column(event.column)
        values.mask &= column.spread(column.look_up(event.present, as_numbers=True) >= 0)


def _text(event: Event, batch: Batch, values: Values, redact: Redact) -> None:
    """Redact each distinct text that is needed; one that cannot be checked is not stored."""
    column = batch.column(event.column)
    redacted: list[str | None] = [None] * len(column.texts)
    for place in np.unique(column.index[values.mask]):
        try:
            redacted[place] = redact(column.texts[place].as_py())
        except NotRedacted:
            redacted[place] = None
    texts = pa.array(redacted, pa.string())
    passed = column.spread(texts.is_valid().to_numpy(zero_copy_only=False))
    batch.turn_away(values.mask & ~passed, event.column, "not-redacted")
    values.text = column.rows_of(texts)
    values.mask &= passed
