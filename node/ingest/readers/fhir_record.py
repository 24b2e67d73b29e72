"""One resource while it gives facts: where it stands, what its status allows, what is turned away of it."""

from __future__ import annotations

from dataclasses import dataclass

from node.ingest.facts import Kind, TurnedAway, unmarked
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_elements import Period, Reference, Resource
from node.ingest.readers.fhir_references import References
from node.ingest.readers.fhir_rows import Origin, Rows
from node.ingest.readers.fhir_times import Moment, moment

ERROR = "entered-in-error"


@dataclass(frozen=True, slots=True)
class Statuses:
    """What a resource's status means. One that stands in neither set is not final.

    holds: it happened, or holds. taken_back: it did not, so what an earlier version said goes.
    """

    holds: frozenset[str]
    taken_back: frozenset[str]


def statuses(holds: str, taken_back: str = "") -> Statuses:
    """Return statuses from words; "entered-in-error" is always taken back."""
    return Statuses(frozenset(holds.split()), frozenset(taken_back.split()) | {ERROR})


class Record:
    """Where the facts of one resource go."""

    __slots__ = (
        "_fallback_id",
        "_first",
        "_place",
        "_retracts",
        "number",
        "references",
        "rows",
        "turned_away",
    )

    def __init__(
        self, number: int, place: str, rows: Rows, references: References, *, fallback_id: str | None = None
    ) -> None:
        self.number = number
        self.references = references
        self.rows = rows
        self.turned_away: list[TurnedAway] = []
        self._place = place
        self._fallback_id = fallback_id
        self._first = len(rows)
        self._retracts: tuple[Origin, Kind] | None = None

    def gate(
        self,
        resource: Resource,
        subject: Reference | None,
        kind: Kind,
        *,
        status: str | None = None,
        allowed: Statuses | None = None,
        recorded: str | None = None,
    ) -> Origin | str:
        """Return what the resource's facts share, or why it gives none.

        A resource without a status holds, as one whose element has no status. Facts of a resource that is
        taken back become retractions of their keys (`finish`). recorded: when it was written down, which is
        its version where the server does not say when it last changed it.
        """
        taken_back = allowed is not None and status in allowed.taken_back
        if allowed is not None and status is not None and not taken_back and status not in allowed.holds:
            return reasons.NOT_FINAL
        origin = self.origin(resource, subject, recorded=recorded)
        if taken_back:
            if origin.key is None:
                return reasons.ENTERED_IN_ERROR if status == ERROR else reasons.NOT_DONE
            self._retracts = (origin, kind)
            return origin
        return origin if origin.patient is not None else reasons.NO_PATIENT

    def origin(self, resource: Resource, subject: Reference | None, *, recorded: str | None = None) -> Origin:
        """Return what the resource's facts share; its patient may be missing."""
        name = type(resource).__name__
        found = resource.id or self._fallback_id
        meta = resource.meta
        written = meta.lastUpdated if meta is not None and meta.lastUpdated else recorded
        at = self.time(written, "meta.lastUpdated")
        patient, namespace = self.references.patient(subject) or (None, self.references.namespace)
        key = f"{name}/{unmarked(found)}" if found else None
        return Origin(self.number, self._place + name, key, at.us if at else None, patient, namespace)

    def finish(self) -> bool:
        """Make retractions of the facts of a resource that is taken back; return whether there is a fact."""
        if self._retracts is not None:
            self.rows.retract(self._first, *self._retracts)
        return len(self.rows) > self._first

    def time(self, text: str | None, field: str) -> Moment | None:
        """Return a time; note one that is none, or whose zone is missing."""
        if not text:
            return None
        at = moment(text)
        if at is None:
            self.turn_away(field, reasons.BAD_DATE)
        elif at.lost_time:
            self.turn_away(field, reasons.NO_TIME_ZONE)
        return at

    def times(self, period: Period | None, field: str) -> tuple[Moment | None, Moment | None]:
        """Return both ends of a period."""
        if period is None:
            return None, None
        return self.time(period.start, f"{field}.start"), self.time(period.end, f"{field}.end")

    def turn_away(self, field: str, reason: str) -> None:
        """Note a field that is not used; the rest of the record is."""
        self.turned_away.append(TurnedAway(self.number, field, reason, whole_record=False))

    def encounter(self, reference: Reference | None) -> str | None:
        """Return the key of the encounter that a reference means."""
        return None if reference is None else self.references.key(reference, "Encounter")


def details(**pairs: str | None) -> dict[str, str] | None:
    """Return the pairs that have a value, or None if none has."""
    kept = {name: value for name, value in pairs.items() if value}
    return kept or None
