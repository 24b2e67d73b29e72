"""One batch of a source table becomes records of the CDM, without identity. Pure but for the vault's secrets.

Every value that does not become part of a record is either missing, or goes to quarantine with a reason:

    missing-patient         no patient id                                     (whole row)
    missing-date, bad-date, implausible-date                     (whole row, if it is the row's date)
    missing-year-of-birth   a person cannot be described                      (whole row)
    unknown-person          no table has described this person yet            (whole row)
    not-a-number, out-of-range, unmapped-value, missing-code, unknown-unit, not-redacted
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pyarrow as pa

from deid.dates import DatePractice, capped_year_of_birth, stored_days, year_of
from deid.vault import Vault
from node.ingest.batch import Batch, Quarantined
from node.ingest.columns import NOT_A_MOMENT, days_of, moment_at, time_of_day
from node.ingest.event_values import SOURCE_VALUE_CHARACTERS, Redact, Values, coded, values_of
from node.ingest.mapping import Mapping
from node.ingest.mapping_parts import Codes, Event, Moment
from node.omop.tables import EVENT_TABLES

EARLIEST_DAY = int(np.datetime64("1900-01-01").astype(np.int64))  # no record of care in a database is older
OLDEST_AGE_ON_RECORD = 125  # years; the oldest person ever known reached 122


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
    latest_day: int  # days since 1970-01-01: nothing has happened after it
    vault: Vault
    redact: Redact


def records_of(
    values: pa.RecordBatch, rows: np.ndarray, rules: Rules, *, knows: Callable[[np.ndarray], np.ndarray]
) -> Records:
    """Return the records of one batch.

    Args:
        rows: the number of each row in its file, from 1.
        knows: which person ids have been described already.
    """
    batch = Batch(values, rows, missing=rules.mapping.missing)
    return _Maker(batch, rules, knows).records()


@dataclass(slots=True)
class _Dates:
    """A date per row: stored day, time of day, and whether it can be used."""

    days: np.ndarray
    time_us: np.ndarray | None
    good: np.ndarray


class _Maker:
    def __init__(self, batch: Batch, rules: Rules, knows: Callable[[np.ndarray], np.ndarray]) -> None:
        self._batch = batch
        self._rules = rules
        self._mapping = rules.mapping
        self._knows = knows
        self._out = Records(quarantined=batch.quarantined)
        self._person, self._shift = self._patients()

    def records(self) -> Records:
        batch = self._batch
        dates = self._row_dates()
        found = [
            (event, values_of(event, batch, redact=self._rules.redact)) for event in self._mapping.events
        ]
        for _event, values in found:
            batch.alive &= ~values.spoils_row
        if self._mapping.person is not None:
            self._describe_persons(dates)
        else:
            batch.drop(~self._knows(self._person), "person", "unknown-person")
        visit_ids = self._visits(dates)
        for event, values in found:
            there = values.mask & batch.alive
            own = dates
            if event.date is not None:
                own = self._dates(event.date)
                batch.turn_away(there & ~own.good, event.date.column or event.column, "bad-date")
                there &= own.good
            assert own is not None, "the mapping was checked: a record has a date"
            if there.any():
                self._emit(event, np.flatnonzero(there), values, own, visit_ids)
        self._out.rows_loaded = int(batch.alive.sum())
        return self._out

    def _patients(self) -> tuple[np.ndarray, np.ndarray]:
        """Person id and date shift per row; rows without a patient are dropped."""
        name = self._mapping.patient_column
        if name is None:
            found = self._rules.vault.pseudonyms(
                self._row_ids(), namespace=f"{self._mapping.namespace} by row"
            )
            return found.ids, found.shift_days
        column = self._batch.column(name)
        found = self._rules.vault.pseudonyms(column.texts.to_pylist(), namespace=self._mapping.namespace)
        self._batch.drop(self._batch.is_missing(name), name, "missing-patient")
        return column.spread(found.ids), column.spread(found.shift_days)

    def _row_ids(self) -> list[str]:
        return [f"{self._rules.source}#{row}" for row in self._batch.rows.tolist()]

    def _row_dates(self) -> _Dates | None:
        moment = self._mapping.date
        if moment is None:
            return None
        dates = self._dates(moment)
        if moment.column is not None:
            self._batch.drop(self._batch.is_missing(moment.column), moment.column, "missing-date")
            self._batch.drop(self._moments(moment) == NOT_A_MOMENT, moment.column, "bad-date")
            self._batch.drop(~dates.good, moment.column, "implausible-date")
        return dates

    def _moments(self, moment: Moment) -> np.ndarray:
        """The true moments, as the file has them. They go no further than this class."""
        if moment.constant is not None:
            days = np.full(len(self._batch), (moment.constant - date(1970, 1, 1)).days)
            return moment_at(days, np.zeros_like(days))
        column = self._batch.column(moment.column or "")
        return column.spread(column.moments(moment.format))

    def _dates(self, moment: Moment) -> _Dates:
        moments = self._moments(moment)
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
        self._batch.drop(undescribed & ~self._knows(self._person), where, "missing-year-of-birth")
        there = np.flatnonzero(self._batch.alive & ~undescribed)
        years = born[there].astype(np.int64)
        if dates is not None:
            years = capped_year_of_birth(years, year_of(dates.days[there]))
        described = {"person_id": pa.array(self._person[there]), "year_of_birth": pa.array(years)}
        for name, codes in (("gender", person.sex), ("race", person.race), ("ethnicity", person.ethnicity)):
            ids, texts = self._described(codes, there)
            described[f"{name}_concept_id"] = ids
            described[f"{name}_source_value"] = texts
        self._out.persons = (pa.table(described), self._batch.rows[there])

    def _described(self, codes: Codes | None, there: np.ndarray) -> tuple[pa.Array, pa.Array]:
        if codes is None:
            return pa.array(np.zeros(len(there), dtype=np.int64)), pa.nulls(len(there), pa.string())
        ids, texts = coded(codes, self._batch, there, as_numbers=True)
        return pa.array(ids), texts

    def _years_of_birth(self, dates: _Dates | None) -> tuple[np.ndarray, str]:
        """The year of birth per row, NaN where it cannot be told, and the column it comes from."""
        person = self._mapping.person
        assert person is not None, "the caller asked"
        if person.birth_date is not None:
            moments = self._moments(person.birth_date)
            known = moments != NOT_A_MOMENT
            days = stored_days(np.where(known, days_of(moments), 0), self._shift, self._rules.practice)
            name = person.birth_date.column or ""
            self._batch.turn_away(~known & ~self._batch.is_missing(name), name, "bad-date")
            return np.where(known, year_of(days), np.nan), name
        name = person.age or person.year_of_birth or ""
        missing = self._batch.is_missing(name)
        numbers = np.where(missing, np.nan, self._batch.numbers(name))
        self._batch.turn_away(~missing & np.isnan(numbers), name, "not-a-number")
        if person.age is None:
            latest = (
                int(np.datetime64(self._rules.latest_day, "D").astype("datetime64[Y]").astype(int)) + 1970
            )
            plausible = (numbers >= latest - OLDEST_AGE_ON_RECORD) & (numbers <= latest)
            born = np.floor(numbers)
        else:
            assert dates is not None, "the mapping was checked: an age has a date"
            plausible = (numbers >= 0) & (numbers <= OLDEST_AGE_ON_RECORD)
            born = year_of(dates.days) - np.floor(numbers)
        self._batch.turn_away(~np.isnan(numbers) & ~plausible, name, "out-of-range")
        return np.where(plausible, born, np.nan), name

    def _visits(self, dates: _Dates | None) -> np.ndarray | None:
        """The id of each row's visit, 0 where there is none; None if the mapping knows no visits."""
        visit = self._mapping.visit
        if visit is None:
            return None
        vault = self._rules.vault
        if visit.column is None:
            ids = vault.pseudonyms(self._row_ids(), namespace="visit by row").ids
            named = self._batch.alive
        else:
            column = self._batch.column(visit.column)
            ids = column.spread(vault.pseudonyms(column.texts.to_pylist(), namespace="visit").ids)
            named = self._batch.alive & ~self._batch.is_missing(visit.column)
        if visit.concept_id is not None:
            assert dates is not None, "the mapping was checked: a visit has a date"
            there = np.flatnonzero(named)
            table = pa.table(
                {
                    "visit_occurrence_id": pa.array(ids[there]),
                    "person_id": pa.array(self._person[there]),
                    "visit_concept_id": pa.array(np.full(len(there), visit.concept_id, dtype=np.int64)),
                    "visit_start_date": _dates32(dates.days[there]),
                    "visit_end_date": self._ends(visit.end, dates, there),
                    "visit_type_concept_id": self._type(len(there)),
                }
            )
            self._out.visits = (table, self._batch.rows[there])
        return np.where(named, ids, 0)

    def _ends(self, moment: Moment | None, starts: _Dates, there: np.ndarray) -> pa.Array:
        """End dates; where none is given or it lies before the start, the start."""
        days = starts.days[there]
        if moment is not None:
            ends = self._dates(moment)
            days = np.where(ends.good[there], np.maximum(ends.days[there], days), days)
        return _dates32(days)

    def _type(self, count: int) -> pa.Array:
        return pa.array(np.full(count, self._mapping.type_concept_id, dtype=np.int64))

    def _emit(
        self, event: Event, there: np.ndarray, values: Values, dates: _Dates, visit_ids: np.ndarray | None
    ) -> None:
        """Make the records of one event for the rows `there`."""
        concepts, source = self._concepts(event, there)
        days = dates.days[there]
        rows = self._batch.rows[there]
        record = {"person_id": pa.array(self._person[there])}
        if event.table == "death":
            record |= {
                "death_date": _dates32(days),
                "death_type_concept_id": self._type(len(there)),
                "cause_concept_id": concepts,
                "cause_source_value": source,
            }
            self._out.deaths.append((pa.table(record), rows))
            return
        shape = EVENT_TABLES[event.table]
        record |= {
            shape.concept: concepts,
            shape.start: _dates32(days),
            shape.type_concept: self._type(len(there)),
            shape.source_value: source,
        }
        if dates.time_us is not None:
            stamps = pa.array(moment_at(days, dates.time_us[there]))
            record[shape.start.removesuffix("_date") + "_datetime"] = stamps.cast(pa.timestamp("us"))
        if shape.end is not None and (event.end is not None or event.table == "drug_exposure"):
            record[shape.end] = self._ends(event.end, dates, there)
        if visit_ids is not None:
            mine = visit_ids[there]
            record["visit_occurrence_id"] = pa.array(mine, mask=mine == 0)
        record |= values.fields(event, there)
        record |= self._unit_fields(event, there)
        self._out.events.append((event.table, pa.table(record), rows))

    def _concepts(self, event: Event, there: np.ndarray) -> tuple[pa.Array, pa.Array]:
        if event.concept is None:
            ids = np.full(len(there), event.concept_id, dtype=np.int64)
            return pa.array(ids), pa.repeat(event.column[:SOURCE_VALUE_CHARACTERS], len(there))
        ids, texts = coded(event.concept, self._batch, there, as_numbers=False)
        return pa.array(ids), texts

    def _unit_fields(self, event: Event, there: np.ndarray) -> dict[str, pa.Array]:
        if event.unit is not None:
            ids, texts = coded(event.unit, self._batch, there, as_numbers=False)
            return {"unit_concept_id": pa.array(ids, mask=ids == 0), "unit_source_value": texts}
        if event.unit_concept_id is not None:
            return {"unit_concept_id": pa.array(np.full(len(there), event.unit_concept_id, dtype=np.int64))}
        return {}


def _dates32(days: np.ndarray) -> pa.Array:
    return pa.array(days.astype(np.int32)).cast(pa.date32())
