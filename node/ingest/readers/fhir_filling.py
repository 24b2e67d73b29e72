"""Own parts of resources in columns, and how they fill in the facts of stencils (fhir_stencils)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from node.ingest.facts import SCHEMA, unmarked
from node.ingest.readers.fhir_forms import Form
from node.ingest.readers.fhir_references import References
from node.ingest.readers.fhir_rows import table_of
from node.ingest.readers.fhir_time_columns import SECOND, SHAPES, UNUSABLE, all_said
from node.ingest.readers.fhir_times import FIRST_US, LAST_US

MINUTE_US = 60_000_000
_PRECISIONS = pa.array([None if shape is None else shape.value for shape in SHAPES], pa.string())


@dataclass(slots=True)
class Own:
    """The own parts of resources of one form; the last slot of `us`, `offsets` and `shapes` is empty.

    usable: which can be filled in at all. signature: what says that two have the same things of their own.
    """

    ids: list[str | None]
    patients: list[str | None]
    visits: list[str | None]
    visited: np.ndarray
    us: np.ndarray
    offsets: np.ndarray
    shapes: np.ndarray
    numbers: np.ndarray
    first_number: np.ndarray
    usable: np.ndarray
    signature: np.ndarray

    @classmethod
    def of(cls, form: Form, owns: Sequence[Any], references: References) -> Own:
        """Take own parts into columns."""
        size = len(owns)
        ids = [own.id for own in owns]
        patients = references.patients([getattr(own, form.subject) for own in owns])
        usable = np.array([a is not None and b is not None for a, b in zip(ids, patients, strict=True)])
        times = np.zeros((form.slots + 1, size, 3), dtype=np.int64)
        signature = np.zeros(size, dtype=np.int64)
        for slot, texts in enumerate(_texts(form, owns)):
            if any(text is not None for text in texts):
                times[slot] = all_said(texts)
            signature = signature * (UNUSABLE + 1) + times[slot, :, 2]
        visits: list[str | None] = [None] * size
        if form.encounter is not None:
            visits = references.keys([getattr(own, form.encounter) for own in owns], "Encounter")
        visited = np.array([visit is not None for visit in visits])
        signature = signature * 2 + visited
        for name in form.periods:
            signature = signature * 2 + np.array([getattr(own, name) is not None for own in owns])
        numbers, first_number = np.zeros(0), np.zeros(size, dtype=np.int64)
        if form.measured:
            numbers, first_number, whole = _numbers(owns)
            usable &= whole
        usable &= (times[:, :, 2] != UNUSABLE).all(axis=0)
        us, offsets, shapes = times[:, :, 0], times[:, :, 1], times[:, :, 2]
        return cls(
            ids, patients, visits, visited, us, offsets, shapes, numbers, first_number, usable, signature
        )


def _texts(form: Form, owns: Sequence[Any]) -> list[list[str | None]]:
    """What is written in each slot."""
    found = [[None if own.meta is None else own.meta.lastUpdated for own in owns]]
    found += [[getattr(own, name) for own in owns] for name in form.times]
    for name in form.periods:
        periods = [getattr(own, name) for own in owns]
        found.append([None if period is None else period.start for period in periods])
        found.append([None if period is None else period.end for period in periods])
    return found


def _numbers(owns: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All numbers one after the other, where those of each resource begin, and which lack none."""
    found: list[float | None] = []
    first: list[int] = []
    lacking: list[int] = []
    for place, own in enumerate(owns):
        first.append(len(found))
        for part in (own, *own.component) if own.component else (own,):
            amount = part.valueQuantity
            if amount is None:
                found.append(None)
            else:
                found.append(amount.value)
                if amount.value is None:
                    lacking.append(place)
    whole = np.ones(len(owns), dtype=bool)
    whole[lacking] = False
    return np.array(found, dtype=np.float64), np.array(first, dtype=np.int64), whole


class Flow(NamedTuple):
    """Where the columns of one fact of a stencil come from: slots of times and places of numbers, or -1."""

    version: int
    start: int
    end: int
    visit: bool
    number: int
    suffix: str  # of its key


@dataclass(slots=True)
class Filling:
    """The facts of all stencils of one file, one after the other, without what is a resource's own."""

    _new: list[tuple[Any, ...]] = field(default_factory=list)
    _facts: pa.Table = field(default_factory=SCHEMA.empty_table)
    _flows: list[Flow] = field(default_factory=list)
    _spans: list[tuple[int, int]] = field(default_factory=list)
    _where: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), dtype=np.int64))
    _suffixes: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))

    def add(self, flows: Sequence[Flow], facts: Sequence[tuple[Any, ...]]) -> int:
        """Add a stencil, its facts as in `Rows.facts`; return its number."""
        self._spans.append((len(self._flows), len(flows)))
        self._flows += flows
        self._new += facts
        return len(self._spans) - 1

    def taken(self, stencils: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each fact of some stencils, in their order, which of them it is of, and which it is."""
        spans = np.array(self._spans, dtype=np.int64)[stencils]
        first, count = spans[:, 0], spans[:, 1]
        if (count == 1).all():
            return np.arange(len(stencils)), first
        of = np.repeat(np.arange(len(stencils)), count)
        before = np.cumsum(count) - count
        return of, np.arange(len(of)) - before[of] + first[of]

    def facts(self) -> tuple[pa.Table, np.ndarray, pa.Array]:
        """Return all facts in one piece, where their columns come from, and what ends their keys."""
        if self._new:
            self._facts = pa.concat_tables([self._facts, table_of(self._new)]).combine_chunks()
            self._where = np.array([flow[:5] for flow in self._flows], dtype=np.int64)
            self._suffixes = pa.array([flow.suffix for flow in self._flows], pa.string())
            self._new = []
        return self._facts, self._where, self._suffixes


def filled(
    form: Form, own: Own, places: np.ndarray, numbers: np.ndarray, stencils: np.ndarray, filling: Filling
) -> pa.Table:
    """Return the facts of the resources at `places`.

    Args: numbers: of their records. stencils: of each of them.
    """
    of, which = filling.taken(stencils)
    facts, where, suffixes = filling.facts()
    version, start, end, visit, number = where[which].T
    take = pa.array(which)
    suffixes = suffixes.take(take)
    at = places[of]
    count = len(at)
    ids = [own.ids[place] or "" for place in places.tolist()]
    joined = "".join(ids)
    if "#" in joined or "%" in joined:
        ids = [unmarked(text) for text in ids]
    keys = pa.array([f"{form.resource.__name__}/{text}" for text in ids], pa.string())
    if count != len(places):
        keys = keys.take(pa.array(of))
    if pc.any(pc.not_equal(suffixes, "")).as_py():
        keys = pc.binary_join_element_wise(keys, suffixes, "")
    rows = at.tolist()
    shape = own.shapes[start, at]
    ends = own.us[end, at] + (own.offsets[end, at] - own.offsets[start, at]) * MINUTE_US
    columns: dict[str, Callable[[], pa.Array]] = {
        "record": lambda: pa.array(numbers[of]),
        "key": lambda: keys,
        "version": lambda: _times(own.us[version, at], version < 0),
        "patient": lambda: pa.array([own.patients[row] for row in rows], pa.string()),
        "encounter": lambda: pa.array(
            [own.visits[row] if its else None for row, its in zip(rows, visit, strict=True)], pa.string()
        ),
        "start": lambda: _times(own.us[start, at], start < 0),
        "end": lambda: _times(np.clip(ends, FIRST_US, LAST_US), end < 0),
        "precision": lambda: _PRECISIONS.take(pa.array(shape)),
        "utc_offset_min": lambda: pa.array(own.offsets[start, at].astype(np.int16), mask=shape != SECOND),
    }

    def column(name: str, kind: pa.DataType) -> pa.Array:
        if name in columns:
            return columns[name]()
        given = facts[name].chunk(0)
        taken = pa.nulls(count, kind) if given.null_count == len(given) else given.take(take)
        if name == "value_number" and (number >= 0).any():
            there = np.where(number >= 0, own.first_number[at] + number, 0)
            values = pa.array(own.numbers[there])
            taken = values if (number >= 0).all() else pc.if_else(pa.array(number >= 0), values, taken)
        return taken

    return pa.Table.from_arrays([column(each.name, each.type) for each in SCHEMA], schema=SCHEMA)


def _times(us: np.ndarray, absent: np.ndarray) -> pa.Array:
    return pa.array(us, mask=absent).cast(pa.timestamp("us", "UTC"))
