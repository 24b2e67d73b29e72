"""What the entries of a ledger amount to: requests, open reservations, and what was committed."""

from __future__ import annotations

import re
from datetime import datetime

from privacy.accountant import Composition
from privacy.budget import DEFAULT_DATASET, NOBODY, Account, Selection, Sum, Tally
from privacy.chain import ChainBroken
from privacy.ledger_entries import EXACT, FORMAT, FORMAT_1, Entry, Reservation, moment_of

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Request:
    """What is known about one request id."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.attempts = 0
        self.open: Reservation | None = None
        self.open_count = 0
        self.committed = 0
        self.revealed = False


class ExactStudy:
    """What is known about a study without noise that was taken part in."""

    def __init__(self, request_id: str, account: Account) -> None:
        self.request_id = request_id
        self.account = account
        self.releases = 0


class State:
    """The ledger's entries, replayed. Not safe for threads: its ledger holds a lock."""

    def __init__(self) -> None:
        self.format = ""
        self.requests: dict[str, Request] = {}
        self.open: dict[str, Request] = {}
        self.tally = Tally()
        self.exact: dict[str, ExactStudy] = {}

    def apply(self, entry: Entry) -> None:
        """Bring what is known up to date with one entry. Raises: ChainBroken for what no writer writes."""
        if entry.kind == "opened":
            if entry.format not in (FORMAT, FORMAT_1) or self.format == FORMAT:
                raise ChainBroken(entry.seq, "a format that this version does not read")
            self.format = entry.format
            return
        if entry.request_id is None:
            raise ChainBroken(entry.seq, "names no request")
        account = self._account(entry)
        if entry.kind == EXACT:
            self._apply_exact(entry, account)
            return
        self._apply_request(entry, entry.request_id, account)

    def _apply_request(self, entry: Entry, request_id: str, account: Account) -> None:
        request = self.requests.setdefault(request_id, Request(account))
        if request.account != account:
            raise ChainBroken(entry.seq, "a request that changes its account")
        held, count = request.open, entry.count
        if entry.kind == "reserved" and held is None and entry.event and entry.attempt and entry.purpose:
            request.attempts = entry.attempt
            ends = None if entry.expires_at is None else moment_of(entry.seq, entry.expires_at)
            request.open = Reservation(request_id, account, entry.purpose, entry.event, entry.attempt, ends)
            request.open_count = entry.event.count
            self.open[request_id] = request
        elif entry.kind in ("committed", "released") and held and count and 0 < count <= request.open_count:
            if entry.kind == "committed":
                self.tally.add(account, held.event.times(count), at=moment_of(entry.seq, entry.at))
                request.committed += count
            request.open_count -= count
            if request.open_count == 0:
                request.open = None
                self.open.pop(request_id, None)
        elif entry.kind == "revealed":
            request.revealed = True
        else:
            raise ChainBroken(entry.seq, "an entry that no writer writes")

    def _apply_exact(self, entry: Entry, account: Account) -> None:
        """Count a release without noise: the steps of a study follow one another, in one request."""
        study, request_id = entry.study, entry.request_id
        if not study or request_id is None or not _DIGEST.fullmatch(study):
            raise ChainBroken(entry.seq, "names no study")
        held = self.exact.setdefault(study, ExactStudy(request_id, account))
        if held.request_id != request_id or held.account != account or entry.step != held.releases:
            raise ChainBroken(entry.seq, "a step of a study that no writer writes")
        held.releases += 1

    def _account(self, entry: Entry) -> Account:
        project, researcher, dataset = entry.project, entry.researcher, entry.dataset
        if self.format == FORMAT_1:
            researcher, dataset = NOBODY, DEFAULT_DATASET
        if not self.format or project is None or researcher is None or dataset is None:
            raise ChainBroken(entry.seq, "names no account")
        try:
            return Account(project, researcher, dataset)
        except (ValueError, TypeError) as error:
            raise ChainBroken(entry.seq, "names no account") from error

    def used(self, selection: Selection, since: datetime | None) -> Composition:
        """Return what was committed since then and all that is reserved now: it may be committed later."""
        total: Sum = self.tally.total(selection, since=since)
        for request in self.open.values():
            if request.open is not None and selection.holds(request.account):
                total.add(request.open.event.times(request.open_count))
        return total.composition()
