"""Facts of FHIR resources on their way into Arrow: one tuple per fact, turned into columns per batch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import chain
from typing import Any

import msgspec
import pyarrow as pa

from node.ingest.facts import CODING, SCHEMA, Action, Kind, Precision, Told
from node.ingest.readers.fact_rows import coding_column, coding_lists, table_from
from node.ingest.readers.fhir_elements import CodeableConcept, Coding
from node.ingest.readers.fhir_times import FIRST_US, LAST_US, Moment

NONE = Coding()
EPOCH_DAY = date(1970, 1, 1)
KEY, KIND = SCHEMA.names.index("key"), SCHEMA.names.index("kind")
EHR = 32817  # OMOP type concept "EHR": where nothing more exact is said


class Origin(msgspec.Struct, frozen=True, gc=False):
    """What all facts of one resource share."""

    record: int
    place: str
    """Where the resource stands in the record: its type, in a bundle on one line after "entry[i]."."""
    key: str | None
    version: int | None
    patient: str | None
    namespace: str | None


class Rows:
    """Facts that are collected until a batch is full."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self.told: list[Told] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        origin: Origin,
        kind: Kind,
        part: str = "",
        *,
        key: str | None = None,
        action: Action = Action.ASSERT,
        other_patient: str | None = None,
        encounter: str | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        concept: CodeableConcept | None = None,
        codings: Sequence[Coding] = (),
        text: str | None = None,
        type_concept_id: int | None = EHR,
        status: str | None = None,
        value_number: float | None = None,
        value_operator: str | None = None,
        value_text: str | None = None,
        value_codings: Sequence[Coding] = (),
        unit: str | None = None,
        range_low: float | None = None,
        range_high: float | None = None,
        quantity: float | None = None,
        days_supply: int | None = None,
        refills: int | None = None,
        route: Coding | None = None,
        dose: str | None = None,
        sex: str | None = None,
        race: Coding | None = None,
        ethnicity: Coding | None = None,
        birth: Moment | None = None,
        charged: float | None = None,
        paid: float | None = None,
        currency: str | None = None,
        other_key: str | None = None,
        details: dict[str, str] | None = None,
    ) -> None:
        """Add a fact. `part` is its place in the resource, and after "#" in its key unless `key` is given.

        `concept` gives codes and text, unless `codings` (which go first) and `text` say otherwise.
        """
        if concept is not None:
            codings = (*codings, *concept.coding) if codings else concept.coding
            if text is None:
                text = concept.text
        at = start or birth
        own = origin.key
        self._rows.append(
            (
                origin.record,
                f"{origin.place}.{part}" if part else origin.place,
                key or (f"{own}#{part}" if part and own else own),
                origin.version,
                action,
                kind,
                origin.patient,
                origin.namespace,
                other_patient,
                encounter,
                start.us if start else None,
                _on_the_clock_of(start, end) if end else None,
                at.precision if at else None,
                start.offset_min if start else None,
                codings,
                text,
                type_concept_id,
                status,
                value_number,
                value_operator,
                value_text,
                value_codings,
                unit,
                range_low,
                range_high,
                quantity,
                days_supply,
                refills,
                route,
                dose,
                sex,
                race,
                ethnicity,
                birth,
                charged,
                paid,
                currency,
                other_key,
                details,
            )
        )

    def retract(self, first: int, origin: Origin, kind: Kind) -> None:
        """Replace what was added since `first` by retractions of the resource's key and of its parts' keys.

        What is only linked to it keeps: a report that is taken back leaves its results.
        """
        parts = [row[KEY] for row in self._rows[first:] if row[KIND] is not Kind.LINK]
        keys = dict.fromkeys([origin.key, *parts])
        del self._rows[first:]
        for key in keys:
            self.add(origin, kind, key=key, action=Action.RETRACT, type_concept_id=None)

    def forget(self, first: int) -> None:
        """Drop what was added since `first`: the resource turned out to be damaged."""
        del self._rows[first:]

    @property
    def facts(self) -> Sequence[tuple[Any, ...]]:
        """What was added: columns as in SCHEMA, but for codings and pairs, which are as in FHIR."""
        return self._rows

    def take(self) -> pa.Table:
        """Return what was added as a table of facts, and start anew."""
        rows, self._rows = self._rows, []
        return table_of(rows)


def table_of(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Return what `Rows.facts` holds as a table of facts."""
    return table_from(rows, SCHEMA.names, _column)


def _on_the_clock_of(start: Moment | None, end: Moment) -> int:
    """The end, as long after 1970 as makes it show its own day and time by the offset that the start has.

    Clocks change between the two, and an end may be a day where the start is a moment.
    """
    ahead = start.offset_min or 0 if start is not None and start.precision == Precision.SECOND else 0
    shown = end.us + ((end.offset_min or 0) - ahead) * 60_000_000
    return min(max(shown, FIRST_US), LAST_US)


def _column(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    if field.name in ("codes", "value_codes"):
        return _coding_lists(values) if any(values) else pa.nulls(len(values), field.type)
    if field.type == CODING:
        return _codings(values)
    if field.name == "birth":
        return pa.array([None if at is None else _day(at) for at in values], pa.date32())
    if field.name == "details":
        return pa.array([None if pairs is None else list(pairs.items()) for pairs in values], field.type)
    return pa.array(values, field.type)


def _day(at: Moment) -> date:
    return EPOCH_DAY + timedelta(microseconds=at.us)


def _coding_lists(values: Sequence[Sequence[Coding]]) -> pa.Array:
    """Return lists of codings, the user's choice first, without those that have no code; no list is empty."""
    flat = list(chain.from_iterable(values))
    if not all([coding.code for coding in flat]) or any([coding.userSelected for coding in flat]):
        values = [_chosen(codings) for codings in values]
    return coding_lists(values, _codings)


def _chosen(codings: Sequence[Coding]) -> list[Coding]:
    return sorted((coding for coding in codings if coding.code), key=lambda coding: not coding.userSelected)


def _codings(values: Sequence[Coding | None]) -> pa.Array:
    """Return a column of codings."""
    absent = [coding is None for coding in values]
    given = [NONE if coding is None else coding for coding in values]
    return coding_column(
        [coding.system for coding in given],
        [coding.code for coding in given],
        [coding.display for coding in given],
        absent if any(absent) else None,
    )
