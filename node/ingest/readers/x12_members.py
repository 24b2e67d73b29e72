"""834 enrolment: each INS, a member, is a record. It gives PERSON and a COVERAGE per HD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from node.ingest.facts import Kind, TurnedAway
from node.ingest.readers.claims_rows import (
    CLAIM_ENROLMENT,
    ClaimRows,
    Origin,
    day_number,
    day_us,
    minute_us,
)

SUBSCRIBER = "18"  # INS02: self
_SEX = {"M": "male", "F": "female"}
_DAYS = {"348", "349", "356", "357"}  # benefit and eligibility, begin and end
_SEGMENTS = frozenset(
    {
        "ACT",
        "AMT",
        "COB",
        "CRC",
        "DMG",
        "DSB",
        "DTP",
        "EC",
        "HD",
        "HLH",
        "HSD",
        "ICM",
        "IDC",
        "INS",
        "LC",
        "LE",
    }
    | {"LS", "LUI", "LX", "N1", "N3", "N4", "NM1", "PER", "PLA", "PRV", "QTY", "REF"}
)


@dataclass(slots=True)
class Plan:
    """One coverage: HD."""

    maintenance: str
    line: str
    name: str
    start: int | None = None
    end: int | None = None


@dataclass(slots=True)
class Member:
    """A member while the segments come in."""

    record: int
    relation: str
    policy: str = ""
    number: str = ""
    number_kind: str = ""
    first_name: str = ""
    sex: str = ""
    birth: int | None = None
    died: int | None = None
    start: int | None = None
    end: int | None = None
    plans: list[Plan] = field(default_factory=list)
    damaged: bool = False


class Members:
    """The 834 transaction set that is being read."""

    def __init__(
        self, rows: ClaimRows, turned_away: list[TurnedAway], next_record: Callable[[], int]
    ) -> None:
        self._rows = rows
        self._turned_away = turned_away
        self._next_record = next_record
        self._version: int | None = None
        self._payer = ""
        self._member: Member | None = None
        self._found = False

    @property
    def pending(self) -> bool:
        """Whether a record is open whose facts are yet to come."""
        return self._member is not None

    def segment(self, parts: list[str]) -> None:
        """Take the next segment of the transaction."""
        name, member = parts[0], self._member
        if name == "INS":
            self._finish()
            self._found = True
            self._member = Member(self._next_record(), _at(parts, 2))
            self._member.died = day_us(_at(parts, 12)) if _at(parts, 11) == "D8" else None
        elif member is None:
            self._before_members(name, parts)
        elif name not in _SEGMENTS:
            member.damaged = True
        elif name == "REF" and _at(parts, 1) == "0F":
            member.policy = _at(parts, 2)
        elif name == "NM1" and _at(parts, 1) in ("IL", "74"):
            member.number_kind, member.number = _at(parts, 8), _at(parts, 9)
            member.first_name = _at(parts, 4)
        elif name == "DMG" and not member.birth:
            member.birth = day_number(_at(parts, 2)) if _at(parts, 1) == "D8" else None
            member.sex = _at(parts, 3)
        elif name == "HD":
            member.plans.append(Plan(_at(parts, 1), _at(parts, 3), _at(parts, 4)))
        elif name == "DTP" and _at(parts, 1) in _DAYS:
            self._day(member, parts)

    def end(self, *, truncated: bool) -> None:
        """Finish: the transaction has ended, or the file has."""
        self._finish(truncated=truncated)
        if not self._found:
            record = self._next_record()
            self._turned_away.append(TurnedAway(record, "", "truncated" if truncated else "no-member", True))

    def _before_members(self, name: str, parts: list[str]) -> None:
        if name == "BGN":
            self._version = minute_us(_at(parts, 3), _at(parts, 4) or "0000")
        elif name == "N1" and _at(parts, 1) == "IN":
            self._payer = _at(parts, 4)

    def _day(self, member: Member, parts: list[str]) -> None:
        what, day = _at(parts, 1), day_us(_at(parts, 3)) if _at(parts, 2) == "D8" else None
        if day is None:
            self._turned_away.append(TurnedAway(member.record, "DTP", "bad-date", False))
            return
        at: Member | Plan = member.plans[-1] if member.plans else member
        if what in ("348", "356"):
            at.start = day
        else:
            at.end = day

    def _finish(self, *, truncated: bool = False) -> None:
        member, self._member = self._member, None
        if member is None:
            return
        reason = "truncated" if truncated else "malformed" if member.damaged else self._facts(member)
        if reason is not None:
            self._turned_away.append(TurnedAway(member.record, "", reason, True))

    def _who(self, member: Member) -> tuple[str, str] | None:
        """Return the namespace and the id: the member's own, else the policy's with birth, sex and name."""
        payer = f":{self._payer}" if self._payer else ""
        if member.number:
            return ("ssn" if member.number_kind == "34" else f"member{payer}"), member.number
        if member.policy and member.relation == SUBSCRIBER:
            return f"member{payer}", member.policy
        if member.policy and (member.birth is not None or member.first_name):
            parts = (member.policy, str(member.birth), member.sex, member.first_name.upper())
            return f"dependent{payer}", "/".join(parts)
        return None

    def _facts(self, member: Member) -> str | None:
        who = self._who(member)
        if who is None:
            return "no-patient"
        origin = Origin(member.record, who[1], who[0], self._version)
        sex = _SEX.get(member.sex, "unknown")
        self._rows.add(origin, Kind.PERSON, "DMG", "member", sex=sex, birth=member.birth)
        if member.died is not None:
            self._rows.add(
                origin, Kind.DEATH, "INS-12", "death", start=member.died, type_concept_id=CLAIM_ENROLMENT
            )
        for number, plan in enumerate(member.plans, 1):
            start = plan.start if plan.start is not None else member.start
            end = plan.end if plan.end is not None else member.end
            if start is None or (end is not None and end < start):
                reason = "no-date" if start is None else "ends-before-start"
                self._turned_away.append(TurnedAway(member.record, f"HD[{number}]", reason, False))
                continue
            name = plan.name or plan.line
            self._rows.add(
                origin,
                Kind.COVERAGE,
                f"HD[{number}]",
                f"coverage:{plan.line}:{plan.name}:{start}",
                start=start,
                end=end,
                type_concept_id=CLAIM_ENROLMENT,
                status=plan.maintenance,
                details=[("payer", self._payer), ("plan", name)],
            )
        return None


def _at(parts: Sequence[str], place: int) -> str:
    return parts[place].strip() if place < len(parts) else ""
