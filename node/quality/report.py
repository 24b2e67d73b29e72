"""What a run of the checks found, as one JSON value: kept in the home, shown, held to the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from node.omop.store import OmopStore
from node.quality.catalogue import Category
from node.quality.coverage import Coverage, coverage
from node.quality.running import Outcome, Status, run

FORMAT = "fedtwin-quality-v1"
_DIGITS = 6  # of shares: a millionth


class DamagedReport(ValueError):
    """The file is no report of this program."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many checks came out how."""

    passed: int
    failed: int
    not_applicable: int

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Self:
        """Count. A check that could not run has failed."""
        found = Counter(outcome.status for outcome in outcomes)
        return cls(
            found[Status.PASSED], found[Status.FAILED] + found[Status.ERROR], found[Status.NOT_APPLICABLE]
        )

    @property
    def pass_rate(self) -> float | None:
        """The share of checks that passed, of those that applied; None if none did."""
        applied = self.passed + self.failed
        return round(self.passed / applied, _DIGITS) if applied else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a report."""
        return {
            "passed": self.passed,
            "failed": self.failed,
            "not_applicable": self.not_applicable,
            "pass_rate": self.pass_rate,
        }


def report(store: OmopStore, *, now: datetime) -> dict[str, Any]:
    """Run every check on the store and return the report. It holds counts of records, and no record."""
    epoch = store.epoch()
    return to_json(run(store), coverage(store), epoch=epoch, persons=_persons(store), now=now)


def to_json(
    outcomes: list[Outcome], mapped: Coverage, *, epoch: str, persons: int, now: datetime
) -> dict[str, Any]:
    """Return the report of these outcomes."""
    total = Tally.of(outcomes)
    share = mapped.to_json()
    share["share"] = None if mapped.share is None else round(mapped.share, _DIGITS)
    return {
        "format": FORMAT,
        "made_at": now.astimezone(UTC).isoformat(),
        "epoch": epoch,
        "persons": persons,
        "summary": total.to_json(),
        "by_category": {
            str(kind): Tally.of(o for o in outcomes if o.check.kind.category is kind).to_json()
            for kind in Category
        },
        "by_check": {
            name: Tally.of(o for o in outcomes if o.check.name == name).to_json()
            for name in dict.fromkeys(outcome.check.name for outcome in outcomes)
        },
        "mapping": share,
        "checks": [_line(outcome) for outcome in outcomes],
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a report decides about studies: two shares (None: nothing there to judge), and its time."""

    pass_rate: float | None
    mapping_coverage: float | None
    made_at: datetime

    @classmethod
    def of(cls, found: Any) -> Self:
        """Read it out of a report. Raises: DamagedReport."""
        try:
            if found["format"] != FORMAT:
                raise DamagedReport("another format")
            made_at = datetime.fromisoformat(found["made_at"])
            shares = (found["summary"]["pass_rate"], found["mapping"]["share"])
        except (KeyError, TypeError, ValueError):
            raise DamagedReport("not a report of this program") from None
        if made_at.tzinfo is None or any(not _is_share(share) for share in shares):
            raise DamagedReport("a value out of range")
        return cls(*shares, made_at)


def _is_share(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)


def _line(outcome: Outcome) -> dict[str, Any]:
    check = outcome.check
    return {
        "check": check.name,
        "level": check.kind.level,
        "category": str(check.kind.category),
        "table": check.table,
        "field": check.field or None,
        "concepts": list(check.concept_ids) or None,
        "limit_percent": check.limit_percent,
        "status": str(outcome.status),
        "failing": outcome.failing,
        "of": outcome.of,
        "failing_percent": round(outcome.percent, 4),
        "why": outcome.why or None,
    }


def _persons(store: OmopStore) -> int:
    if not store.has("person"):
        return 0
    row = store.connection.con.execute("SELECT count(*) FROM person").fetchone()
    assert row is not None, "an aggregate always returns one row"
    return int(row[0])
