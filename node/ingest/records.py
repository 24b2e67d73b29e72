"""One batch of a source table becomes records of the CDM, without identity. Pure but for the vault's secrets.

Every value that does not become part of a record is either missing, or goes to quarantine with a reason:

  missing-patient         no patient id                                        (whole row)
  missing-date, bad-date, implausible-date                        (whole row, if it is the row's date)
  missing-year-of-birth   a person cannot be described                         (whole row)
  unknown-person          no table has described this person yet               (whole row)
  not-a-number, out-of-range, unmapped-value, missing-code, unknown-unit, not-redacted
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pyarrow as pa

from deid.dates import DatePractice, capped_year_of_birth, stored_days, year_of
from deid.errors import NotRedacted
from deid.vault import Vault
from node.ingest.columns import NOT_A_MOMENT, Column, days_of, moment_at, time_of_day
from node.ingest.mapping import Codes, Event, Kind, Mapping, Moment
from node.omop.tables import EVENT_TABLES

EARLIEST_DAY = int(np.datetime64("1900-01-01").astype(np.int64))  # no record of care in a database is older
OLDEST_AGE_ON_RECORD = 125  # years; the oldest person ever known reached 122
_SOURCE_VALUE = 50  # OMOP's width of a source value
Redact = Callable[[str], str]


@dataclass(slots=True)
class Quarantined:
    """Rows in which one field was turned away for one reason."""

    field: str
    reason: str
    rows: np.ndarray
    whole_row: bool


@dataclass(slots=True)
class Records:
    """What a batch became. Each table comes with the source row of each record."""

    persons: tuple[pa.Table, np.ndarray] | None = None
    visits: tuple[pa.Table, np.ndarray] | None = None
    events: list[tuple[str, pa.Table, np.ndarray]] = field(default_factory=list)
    deaths: list[tuple[pa.Table, np.ndarray]] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    rows_loaded: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every batch of a file."""

    mapping: Mapping
    source: str
    practice: DatePractice
    latest_day: int  # days since 1970: nothing has happened after it
    vault: Vault
    redact: Redact


def records_of(
    batch: pa.RecordBatch, rows: np.ndarray, rules: Rules, *, knows: Callable[[np.ndarray], np.ndarray]
) -> Records:
    """Return the records of one batch.

    Args:
        rows: the number of each row in its file, from 1.
        knows: which person ids have been described already.
    """
    return _Batch(batch, rows, rules, knows).records()


@dataclass(slots=True)
class _Dates:
    """A date per row: stored day, time of day, and whether it can be used."""

    days: np.ndarray
    time_us: np.ndarray | None
    good: np.ndarray


class _Batch:
    def __init__(
        self,
        batch: pa.RecordBatch,
        rows: np.ndarray,
        rules: Rules,
        knows: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self._batch = batch
        self._rows = rows
        self._rules = rules
        self._mapping = rules.mapping
        self._knows = knows
        self._columns: dict[str, Column] = {}
        self._out = Records()
        self._alive = np.ones(len(rows), dtype=bool)

    def records(self) -> Records:
        self._find_patients()
        dates = self._row_dates()
        found = [(event, *self._parse(event)) for event in self._mapping.events]
        for _event, _mask, values in found:
            self._alive &= ~values.spoils_row
        if self._mapping.person is not None:
            self._describe_persons(dates)
        else:
            self._drop_rows(~self._knows(self._person), "person", "unknown-person")
        visit_ids = self._visits(dates)
        used = np.zeros(len(self._rows), dtype=bool)
        for event, mask, values in found:
            mask = mask & self._alive
            if event.date is not None:
                own = self._dates(event.date)
                self._turn_away(mask & ~own.good, event.date.column or event.column, "bad-date")
                mask = mask & own.good
            else:
                assert dates is not None, "the mapping was checked: a record has a date"
                own = dates
            used |= mask
            self._emit(event, np.flatnonzero(mask), values, own, visit_ids)
        self._out.rows_loaded = int(self._alive.sum())
        return self._out

    def _column(self, name: str) -> Column:
        if name not in self._columns:
            self._columns[name] = Column(self._batch.column(name))
        return self._columns[name]

    def _is_missing(self, name: str, extra: tuple[str, ...] = ()) -> np.ndarray:
        column = self._column(name)
        return column.spread(column.missing((*self._mapping.missing, *extra)))

    def _turn_away(self, mask: np.ndarray, column: str, reason: str, *, whole_row: bool = False) -> None:
        mask = mask & self._alive
        if mask.any():
            self._out.quarantined.append(Quarantined(column, reason, self._rows[mask], whole_row))

    def _drop_rows(self, mask: np.ndarray, column: str, reason: str) -> None:
        self._turn_away(mask, column, reason, whole_row=True)
        self._alive &= ~mask

    def _find_patients(self) -> None:
        name = self._mapping.patient_column
        if name is None:
            ids = [f"{self._rules.source}#{row}" for row in self._rows.tolist()]
            found = self._rules.vault.pseudonyms(ids, namespace=f"{self._mapping.namespace} by row")
            self._person, self._shift = found.ids, found.shift_days
            return
        column = self._column(name)
        found = self._rules.vault.pseudonyms(column.texts.to_pylist(), namespace=self._mapping.namespace)
        self._person, self._shift = column.spread(found.ids), column.spread(found.shift_days)
        self._drop_rows(self._is_missing(name, ("",)), name, "missing-patient")

    def _row_dates(self) -> _Dates | None:
        moment = self._mapping.date
        if moment is None:
            return None
        dates = self._dates(moment)
        if moment.column is not None:
            missing = self._is_missing(moment.column, ("",))
            self._drop_rows(missing, moment.column, "missing-date")
            self._drop_rows(self._no_date(moment), moment.column, "bad-date")
            self._drop_rows(~dates.good, moment.column, "implausible-date")
        return dates

    def _no_date(self, moment: Moment) -> np.ndarray:
        column = self._column(moment.column or "")
        return column.spread(column.moments(moment.format)) == NOT_A_MOMENT

    def _true_moments(self, moment: Moment) -> np.ndarray:
        if moment.constant is None:
            column = self._column(moment.column or "")
            return column.spread(column.moments(moment.format))
        day = (moment.constant - date(1970, 1, 1)).days
        return moment_at(np.full(len(self._rows), day), np.zeros(len(self._rows), dtype=np.int64))

    def _dates(self, moment: Moment) -> _Dates:
        moments = self._true_moments(moment)
        days = days_of(moments)
        good = (moments != NOT_A_MOMENT) & (days >= EARLIEST_DAY) & (days <= self._rules.latest_day)
        stored = stored_days(np.where(good, days, 0), self._shift, self._rules.practice)
        keeps_time = moment.with_time and self._rules.practice is DatePractice.SHIFTED
        return _Dates(stored, time_of_day(moments) if keeps_time else None, good)

    def _describe_persons(self, dates: _Dates | None) -> None:
        person = self._mapping.person
        assert person is not None, "the caller asked"
        born, where = self._years_of_birth(dates)
        undescribed = np.isnan(born)
        self._drop_rows(undescribed & ~self._knows(self._person), where, "missing-year-of-birth")
        there = np.flatnonzero(self._alive & ~undescribed)
        years = born[there].astype(np.int64)
        if dates is not None:
            years = capped_year_of_birth(years, year_of(dates.days[there]))
        described: dict[str, pa.Array] = {
            "person_id": pa.array(self._person[there]),
            "year_of_birth": pa.array(years),
        }
        for name, codes in (("gender", person.sex), ("race", person.race), ("ethnicity", person.ethnicity)):
            ids, texts = self._coded(codes, there, as_numbers=True)
            described[f"{name}_concept_id"] = pa.array(ids)
            described[f"{name}_source_value"] = texts
        self._out.persons = (pa.table(described), self._rows[there])

    def _years_of_birth(self, dates: _Dates | None) -> tuple[np.ndarray, str]:
        """The year of birth per row, NaN where it cannot be told, and the column it comes from."""
        person = self._mapping.person
        assert person is not None, "the caller asked"
        if person.birth_date is not None:
            moments = self._true_moments(person.birth_date)
            known = moments != NOT_A_MOMENT
            days = stored_days(np.where(known, days_of(moments), 0), self._shift, self._rules.practice)
            name = person.birth_date.column or ""
            self._turn_away(~known & ~self._is_missing(name, ("",)), name, "bad-date")
            return np.where(known, year_of(days), np.nan), name
        name = person.age or person.year_of_birth or ""
        column = self._column(name)
        numbers = column.spread(column.numbers)
        missing = self._is_missing(name, ("",))
        self._turn_away(~missing & np.isnan(numbers), name, "not-a-number")
        numbers = np.where(missing, np.nan, numbers)
        if person.age is None:
            latest = 1970 + self._rules.latest_day // 365.2425
            plausible = (numbers >= latest - OLDEST_AGE_ON_RECORD) & (numbers <= latest)
            born = np.floor(numbers)
        else:
            assert dates is not None, "the mapping was checked: an age has a date"
            plausible = (numbers >= 0) & (numbers <= OLDEST_AGE_ON_RECORD)
            born = year_of(dates.days) - np.floor(numbers)
        self._turn_away(~np.isnan(numbers) & ~plausible, name, "out-of-range")
        return np.where(plausible, born, np.nan), name

    def _coded(
        self, codes: Codes | None, there: np.ndarray, *, as_numbers: bool
    ) -> tuple[np.ndarray, pa.Array]:
        """Concept ids (0 if unmapped) and the codes themselves (none if unmapped: they could be anything)."""
        if codes is None:
            return np.zeros(len(there), dtype=np.int64), pa.nulls(len(there), pa.string())
        column = self._column(codes.column)
        places = column.look_up(codes.map, as_numbers=as_numbers)
        ids = np.array([*codes.map.values(), 0], dtype=np.int64)[places]
        return column.spread(ids)[there], _texts(list(codes.map), column.spread(places)[there])

    def _visits(self, dates: _Dates | None) -> np.ndarray | None:
        visit = self._mapping.visit
        if visit is None:
            return None
        if visit.column is None:
            ids = [f"{self._rules.source}#{row}" for row in self._rows.tolist()]
            visit_ids = self._rules.vault.pseudonyms(ids, namespace="visit by row").ids
            named = self._alive
        else:
            column = self._column(visit.column)
            visit_ids = column.spread(
                self._rules.vault.pseudonyms(column.texts.to_pylist(), namespace="visit").ids
            )
            named = self._alive & ~self._is_missing(visit.column, ("",))
        if visit.concept_id is not None:
            assert dates is not None, "the mapping was checked: a visit has a date"
            there = np.flatnonzero(named)
            end = self._ends(visit.end, dates, there)
            table = pa.table(
                {
                    "visit_occurrence_id": pa.array(visit_ids[there]),
                    "person_id": pa.array(self._person[there]),
                    "visit_concept_id": pa.array(np.full(len(there), visit.concept_id, dtype=np.int64)),
                    "visit_start_date": _dates32(dates.days[there]),
                    "visit_end_date": end,
                    "visit_type_concept_id": self._type(len(there)),
                }
            )
            self._out.visits = (table, self._rows[there])
        return np.where(named, visit_ids, 0)

    def _ends(self, moment: Moment | None, starts: _Dates, there: np.ndarray) -> pa.Array:
        """End dates; where none is given or it lies before the start, the start."""
        days = starts.days[there]
        if moment is not None:
            ends = self._dates(moment)
            days = np.where(ends.good[there], np.maximum(ends.days[there], days), days)
        return _dates32(days)

    def _type(self, count: int) -> pa.Array:
        return pa.array(np.full(count, self._mapping.type_concept_id, dtype=np.int64))

    def _parse(self, event: Event) -> tuple[np.ndarray, _Values]:
        """Which rows have such a record, and its values; what cannot be used goes to quarantine."""
        column = self._column(event.column)
        asked = self._alive.copy()
        if event.when is not None:
            when = self._column(event.when.column)
            asked &= when.spread(when.look_up(event.when.values, as_numbers=True) >= 0)
        asked &= ~self._is_missing(event.column, ("", *event.missing))
        values = _Values(np.zeros(len(self._rows), dtype=bool))
        if event.kind is Kind.NUMBER:
            asked = self._parse_number(event, column, asked, values)
        elif event.kind is Kind.CATEGORY:
            codes = list(dict.fromkeys((*event.values, *event.value_concepts)))
            values.place = column.spread(column.look_up(codes, as_numbers=True))
            values.codes = codes
            self._turn_away(asked & (values.place < 0), event.column, "unmapped-value")
            asked &= values.place >= 0
        elif event.kind is Kind.PRESENT:
            asked = self._parse_present(event, column, asked)
        else:
            asked = self._parse_text(event, column, asked, values)
        if event.concept is not None:
            no_code = asked & self._is_missing(event.concept.column, ("",))
            self._turn_away(no_code, event.concept.column, "missing-code")
            asked &= ~no_code
        if event.unit is not None:
            units = self._column(event.unit.column)
            known = units.spread(units.look_up(event.unit.map, as_numbers=False) >= 0)
            strange = asked & ~known & ~self._is_missing(event.unit.column, ("",))
            self._turn_away(strange, event.unit.column, "unknown-unit")
            asked &= ~strange
        return asked, values

    def _parse_number(self, event: Event, column: Column, asked: np.ndarray, values: _Values) -> np.ndarray:
        numbers = column.spread(column.numbers)
        self._turn_away(asked & np.isnan(numbers), event.column, "not-a-number")
        asked = asked & ~np.isnan(numbers)
        values.number = numbers * event.scale
        if event.range is not None:
            low, high = event.range
            outside = asked & ~((values.number >= low) & (values.number <= high))
            self._turn_away(outside, event.column, "out-of-range", whole_row=event.whole_row)
            if event.whole_row:
                values.spoils_row = outside
            asked &= ~outside
        return asked

    def _parse_present(self, event: Event, column: Column, asked: np.ndarray) -> np.ndarray:
        if event.above is not None:
            numbers = column.spread(column.numbers)
            self._turn_away(asked & np.isnan(numbers), event.column, "not-a-number")
            return asked & (numbers > event.above)
        if event.present:
            return asked & column.spread(column.look_up(event.present, as_numbers=True) >= 0)
        return asked

    def _parse_text(self, event: Event, column: Column, asked: np.ndarray, values: _Values) -> np.ndarray:
        """Redact each distinct text that is needed; one that cannot be checked is not stored."""
        redacted: list[str | None] = [None] * len(column.texts)
        for place in np.unique(column.index[asked]):
            try:
                redacted[place] = self._rules.redact(column.texts[place].as_py())
            except NotRedacted:
                redacted[place] = None
        texts = pa.array(redacted, pa.string())
        passed = column.spread(texts.is_valid().to_numpy(zero_copy_only=False))
        self._turn_away(asked & ~passed, event.column, "not-redacted")
        values.text = column.rows_of(texts)
        return asked & passed

    def _emit(
        self, event: Event, there: np.ndarray, values: _Values, dates: _Dates, visit_ids: np.ndarray | None
    ) -> None:
        if not len(there):
            return
        concepts, source_values = self._event_concepts(event, there)
        days = dates.days[there]
        if event.table == "death":
            record = {
                "person_id": pa.array(self._person[there]),
                "death_date": _dates32(days),
                "death_type_concept_id": self._type(len(there)),
                "cause_concept_id": concepts,
                "cause_source_value": source_values,
            }
            self._out.deaths.append((pa.table(record), self._rows[there]))
            return
        shape = EVENT_TABLES[event.table]
        record = {
            "person_id": pa.array(self._person[there]),
            shape.concept: concepts,
            shape.start: _dates32(days),
            shape.type_concept: self._type(len(there)),
            shape.source_value: source_values,
        }
        if dates.time_us is not None:
            stamps = moment_at(days, dates.time_us[there])
            record[shape.start.removesuffix("_date") + "_datetime"] = pa.array(stamps).cast(
                pa.timestamp("us")
            )
        if shape.end is not None and (event.end is not None or event.table == "drug_exposure"):
            record[shape.end] = self._ends(event.end, dates, there)
        if visit_ids is not None:
            mine = visit_ids[there]
            record["visit_occurrence_id"] = pa.array(mine, mask=mine == 0)
        record |= values.fields(event, there)
        record |= self._unit_fields(event, there)
        self._out.events.append((event.table, pa.table(record), self._rows[there]))

    def _event_concepts(self, event: Event, there: np.ndarray) -> tuple[pa.Array, pa.Array]:
        if event.concept is None:
            ids = np.full(len(there), event.concept_id, dtype=np.int64)
            return pa.array(ids), pa.repeat(event.column[:_SOURCE_VALUE], len(there))
        ids, texts = self._coded(event.concept, there, as_numbers=False)
        return pa.array(ids), texts

    def _unit_fields(self, event: Event, there: np.ndarray) -> dict[str, pa.Array]:
        if event.unit is not None:
            ids, texts = self._coded(event.unit, there, as_numbers=False)
            return {"unit_concept_id": pa.array(ids, mask=ids == 0), "unit_source_value": texts}
        if event.unit_concept_id is not None:
            return {"unit_concept_id": pa.array(np.full(len(there), event.unit_concept_id, dtype=np.int64))}
        return {}


@dataclass(slots=True)
class _Values:
    """What the rows of one event hold; only the part that its kind has is set."""

    spoils_row: np.ndarray
    number: np.ndarray | None = None
    place: np.ndarray | None = None
    codes: list[str] = field(default_factory=list)
    text: pa.Array | None = None

    def fields(self, event: Event, there: np.ndarray) -> dict[str, pa.Array]:
        """The value columns of the records."""
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
            "value_source_value": _texts(self.codes, place),
        }


def _dates32(days: np.ndarray) -> pa.Array:
    return pa.array(days.astype(np.int32)).cast(pa.date32())


def _texts(codes: list[str], places: np.ndarray) -> pa.Array:
    """The codes at `places`, none where a place is -1."""
    cut = pa.array([code[:_SOURCE_VALUE] for code in codes], pa.string())
    return cut.take(pa.array(places, mask=places < 0))
