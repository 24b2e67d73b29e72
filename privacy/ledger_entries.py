"""What stands in a ledger: one entry for each thing that happened, in the format that is written today.

Format 1 named no researcher and no dataset. Its entries are read as nobody's, about the default dataset: they
count against node, dataset and project as ever. The first writer of this version marks where format 2 begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from privacy.accountant import Event, UnknownEvent, event_from_json
from privacy.budget import Account
from privacy.chain import ChainBroken

EXACT = "exact"  # the kind of entry of a release without noise; programs before it refuse a ledger with one
FORMAT = "fedtwin-ledger-v2"
FORMAT_1 = "fedtwin-ledger-v1"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Budget that is set aside for one attempt at one request, until `expires_at` if it is given."""

    request_id: str
    account: Account
    purpose: str
    event: Event
    attempt: int
    expires_at: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Return whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger, for people and audits."""

    seq: int
    at: str
    kind: str
    hash: str
    request_id: str | None = None
    project: str | None = None
    researcher: str | None = None
    dataset: str | None = None
    purpose: str | None = None
    attempt: int | None = None
    event: Event | None = None
    count: int | None = None
    reason: str | None = None
    expires_at: str | None = None
    format: str | None = None
    study: str | None = None
    step: int | None = None


def entry_of(seq: int, digest: str, found: dict[str, Any]) -> Entry:
    """Return the entry that a record holds. Raises: ChainBroken for fields or events of no version."""
    fields = dict(found)
    try:
        if fields.get("event") is not None:
            fields["event"] = event_from_json(fields["event"])
        return Entry(seq=seq, hash=digest, **fields)
    except (TypeError, UnknownEvent) as error:
        raise ChainBroken(seq, "a field or an event that this version does not know") from error


def moment_of(seq: int, text: str) -> datetime:
    """Return the aware moment that an entry writes as `text`. Raises: ChainBroken."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ChainBroken(seq, "a time that cannot be read") from error
    if moment.tzinfo is None:
        raise ChainBroken(seq, "a time without a zone")
    return moment


def account_fields(account: Account) -> dict[str, Any]:
    """Return an account as the fields of an entry."""
    return {"project": account.project, "researcher": account.researcher, "dataset": account.dataset}
