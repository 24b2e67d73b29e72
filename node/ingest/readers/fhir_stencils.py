"""Facts of resources that say what others said before: made once, then filled in by columns.

Two of three records of a hospital are results, and a few thousand contents (code, status, category, unit,
range) stand in millions of them. A stencil is the facts of one content. It is made by the same functions that
read any resource, which are asked twice, with ids, times and numbers that are made up: where both answers
differ in those alone, each fact tells which of its columns come from which of them, and the stencil holds for
every resource with this content. What does not fit (a date that is none, a patient who is not named by an
address, a content that is new, or of which a function makes something else with every number) is left to be
read as any resource.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from node.ingest.facts import SCHEMA, Precision
from node.ingest.readers.fhir_catalogue import NAMES, READ, RESOURCE
from node.ingest.readers.fhir_elements import Meta, Period, Reference
from node.ingest.readers.fhir_filling import Filling, Flow, Own, filled
from node.ingest.readers.fhir_forms import OWN, REST, WRITTEN, Form, own_decoder
from node.ingest.readers.fhir_record import Record
from node.ingest.readers.fhir_references import References
from node.ingest.readers.fhir_rows import Rows
from node.ingest.readers.fhir_time_columns import NOT_SAID, SHAPES
from node.ingest.readers.fhir_times import CACHED, moment

MOST = 1 << 14  # contents that are remembered of one file
TRIED, WORTH = 4096, 4  # after so many resources of a form, one in so many must have been filled in
NEVER, AGAIN = -9, -3  # of contents: not to be filled in; seen so often, they are made a stencil of
NUL = b"\\u0000"
AT = {name: place for place, name in enumerate(SCHEMA.names)}
DECODER = own_decoder((NAMES | {"Bundle"}) - {form.resource.__name__ for form in OWN.values()})
BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(slots=True)
class _Tried:
    """How a form does in this file."""

    resources: int = 0
    filled: int = 0

    def __bool__(self) -> bool:
        return self.resources < TRIED or self.filled * WORTH >= self.resources


@dataclass(slots=True)
class Stencils:
    """The stencils of one file."""

    references: References
    _places: dict[tuple[int, bytes], int] = field(default_factory=dict)
    _filling: Filling = field(default_factory=Filling)
    _tried: dict[Form, _Tried] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget all contents: what references mean has changed."""
        self._places, self._filling = {}, Filling()

    def fill(self, numbers: Sequence[int], lines: Sequence[bytes]) -> tuple[pa.Table | None, list[int]]:
        """Return facts of the resources that could be filled in, and the places of all other lines."""
        owns = _owns(lines)
        by_form: dict[Form, list[int]] = {}
        for place, own in enumerate(owns):
            if (form := OWN.get(type(own))) is not None:
                by_form.setdefault(form, []).append(place)
            elif type(own).__name__ == "Bundle":  # what it holds may change what others point to
                return None, list(range(len(lines)))
        tables = []
        done: set[int] = set()
        for form, places in by_form.items():
            tried = self._tried.setdefault(form, _Tried())
            if not tried:
                continue
            some = [lines[place] for place in places]
            own = Own.of(form, [owns[place] for place in places], self.references)
            found = self._stencils(form, some, own)
            good = np.flatnonzero(found >= 0)
            tried.resources += len(places)
            tried.filled += len(good)
            if len(good):
                at = np.asarray(places)[good]
                done.update(at.tolist())
                tables.append(filled(form, own, good, np.asarray(numbers)[at], found[good], self._filling))
        if not tables:
            return None, list(range(len(lines)))
        table = tables[0] if len(tables) == 1 else in_order(pa.concat_tables(tables))
        return table, [place for place in range(len(lines)) if place not in done]

    def _stencils(self, form: Form, lines: Sequence[bytes], own: Own) -> np.ndarray:
        """The stencil of each resource, or a negative number."""
        if len(self._places) > MOST:
            self.forget()
        try:
            rests = [WRITTEN.encode(REST.decode(line)) for line in lines]
        except BROKEN:
            return np.full(len(lines), NEVER)
        own.usable[[i for i, line in enumerate(lines) if NUL in line]] = False  # forbidden, if it is one
        keys = list(zip(own.signature.tolist(), rests, strict=True))
        places = self._places
        found = list(map(places.get, keys))
        for i, place in enumerate(found):
            if place is not None and place >= 0:
                continue
            if not own.usable[i]:
                found[i] = NEVER
                continue
            place = places.get(keys[i])
            if place is None or NEVER < place < 0:
                place = (place or 0) - 1
                places[keys[i]] = place = self._made(form, lines[i], own, i) if place <= AGAIN else place
            found[i] = place
        stencils = np.array(found, dtype=np.int64)
        stencils[~own.usable] = NEVER
        return stencils

    def _made(self, form: Form, line: bytes, own: Own, i: int) -> int:
        """Make a stencil of a content; return its number, or NEVER."""
        said = [int(shape) for shape in own.shapes[:-1, i]]
        first, second = (self._answer(form, line, said, bool(own.visited[i]), turn) for turn in (0, 1))
        if first is None or first != second:
            return NEVER
        return self._filling.add([flow for flow, _ in first], [row for _, row in first])

    def _answer(
        self, form: Form, line: bytes, said: Sequence[int], visited: bool, turn: int
    ) -> list[tuple[Flow, tuple[Any, ...]]] | None:
        """Return the facts of a resource whose own part is made up, without it, and where it went."""
        try:
            resource: Any = RESOURCE.decode(line)
        except BROKEN:
            return None
        if resource.modifierExtension or resource.implicitRules:
            return None
        name, who, visit = form.resource.__name__, f"whom-{turn}", f"visit-{turn}"
        texts = [_made_up(slot, shape, turn) for slot, shape in enumerate(said)]
        resource.id = f"own-{turn}"
        resource.meta = Meta(lastUpdated=texts[0])
        setattr(resource, form.subject, Reference(reference=f"Patient/{who}"))
        if form.encounter is not None:
            its = Reference(reference=f"Encounter/{visit}") if visited else None
            setattr(resource, form.encounter, its)
        for at, field_name in enumerate(form.times, 1):
            setattr(resource, field_name, texts[at])
        for at, field_name in enumerate(form.periods):
            if getattr(resource, field_name) is not None:
                start = 1 + len(form.times) + 2 * at
                setattr(resource, field_name, Period(texts[start], texts[start + 1]))
        numbers = _with_numbers(resource, turn) if form.measured else {}
        rows = Rows()
        record = Record(0, "", rows, self.references)
        READ[form.resource][0](resource, record)
        if not record.finish() or record.turned_away or rows.told:
            return None
        slots = {time.us: slot for slot, text in enumerate(texts) if text and (time := moment(text))}
        found = []
        for row in rows.facts:
            answer = _flow(row, f"{name}/own-{turn}", who, f"Encounter/{visit}", slots, numbers, said)
            if answer is None:
                return None
            found.append(answer)
        return found


def _owns(lines: Sequence[bytes]) -> list[Any]:
    """Own parts; None where a line is damaged, or of a resource that is none of R4's."""
    decode = DECODER.decode
    try:
        return [decode(line) for line in lines]
    except BROKEN:
        return [_own(line) for line in lines]


def _own(line: bytes) -> Any:
    try:
        return DECODER.decode(line)
    except BROKEN:
        return None


@lru_cache(maxsize=CACHED)
def _made_up(slot: int, shape: int, turn: int) -> str | None:
    """A time of this shape that no other slot has; the order of the slots is another in each turn."""
    number = 28 - slot if turn else 1 + slot
    year = 1900 + 100 * turn + number
    forms: dict[Precision | None, str] = {
        Precision.SECOND: f"{year}-02-{number:02d}T03:04:05Z",
        Precision.DAY: f"{year}-03-{number:02d}",
        Precision.MONTH: f"{year}-04",
        Precision.YEAR: f"{year}",
    }
    return None if shape == NOT_SAID else forms[SHAPES[shape]]


def _with_numbers(resource: Any, turn: int) -> dict[float, int]:
    """Give the resource numbers that no source has; return the place of each."""
    found: dict[float, int] = {}
    for place, part in enumerate((resource, *resource.component)):
        if part.valueQuantity is not None:
            number = -(1.37e-207 * (place + 1)) if turn else 1.73e203 * (place + 1)
            part.valueQuantity.value = number
            found[number] = place
    return found


def _flow(
    row: tuple[Any, ...],
    key: str,
    who: str,
    visit: str,
    slots: dict[int, int],
    numbers: dict[float, int],
    said: Sequence[int],
) -> tuple[Flow, tuple[Any, ...]] | None:
    """Return where a fact's own columns come from, and the fact without them; None if that cannot be told."""
    own_key = row[AT["key"]]
    if row[AT["patient"]] != who or row[AT["encounter"]] not in (None, visit) or own_key is None:
        return None
    suffix = own_key[len(key) :]
    if not own_key.startswith(key) or (suffix and suffix[0] != "#"):
        return None
    times = [row[AT[name]] for name in ("version", "start", "end")]
    if any(at is not None and at not in slots for at in times):
        return None
    version, start, end = (-1 if at is None else slots[at] for at in times)
    shape = said[start] if start >= 0 else NOT_SAID
    if row[AT["precision"]] != SHAPES[shape] or row[AT["birth"]] is not None:
        return None
    number = numbers.get(row[AT["value_number"]], -1)
    left = list(row)
    left[AT["record"]] = 0
    for name in ("key", "patient", "encounter", "version", "start", "end", "precision", "utc_offset_min"):
        left[AT[name]] = None
    if number >= 0:
        left[AT["value_number"]] = None
    return Flow(version, start, end, row[AT["encounter"]] is not None, number, suffix), tuple(left)


def in_order(facts: pa.Table) -> pa.Table:
    """Return facts by record; those of one record keep their order."""
    order = np.argsort(facts["record"].to_numpy(), kind="stable")
    return facts.take(pa.array(order))
