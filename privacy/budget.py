"""Who pays, what the caps are, and what was spent: folded so that any cap is checked in a few additions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import product
from typing import TypeVar

from privacy.accountant import LARGEST_EPSILON, Composition, Event, GaussianEvent, PureEvent

Kind = TypeVar("Kind")

DEFAULT_DATASET = "cdm"  # what a node holds unless its config names it; what ledgers before format 2 meant
NOBODY = ""  # the researcher of entries from before format 2, which named none

DATASET = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,199}")
_RESEARCHER = re.compile(r"[!-~]{0,260}")  # a roster name, or one and the subject that a gateway asks for


class Cap(StrEnum):
    """Which cap was reached. A word for the hospital's own log; it never leaves."""

    NODE = "node"
    DATASET = "dataset"
    PROJECT = "project"
    RESEARCHER = "researcher"


@dataclass(frozen=True, slots=True)
class Account:
    """Who a release is charged to: a researcher, asking for a project, about one dataset of this node."""

    project: str
    researcher: str
    dataset: str = DEFAULT_DATASET

    def __post_init__(self) -> None:
        if not _PROJECT.fullmatch(self.project):
            raise ValueError("project is malformed")
        if not _RESEARCHER.fullmatch(self.researcher):
            raise ValueError("researcher is malformed: printable ASCII without blanks")
        if not DATASET.fullmatch(self.dataset):
            raise ValueError("dataset is malformed: 1 to 64 of a-z, 0-9, '.', '_' and '-'")


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that may be spent, as ε at `delta`: in all, about one dataset, by a project, by a researcher.

    project_since, researcher_since: what was committed before this moment no longer counts against that cap,
    as a policy with periods says; None: all counts, for ever. A moment within a month counts as the month's
    first. The caps of node and dataset have no such moment: they hold for a patient's lifetime.
    """

    delta: float
    epsilon_total: float
    epsilon_dataset: float
    epsilon_project: float
    epsilon_researcher: float
    project_since: datetime | None = None
    researcher_since: datetime | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise ValueError("delta must lie strictly between 0 and 1")
        for cap in (self.epsilon_total, self.epsilon_dataset, self.epsilon_project, self.epsilon_researcher):
            if not (math.isfinite(cap) and 0.0 <= cap <= LARGEST_EPSILON):
                raise ValueError(f"a cap is an epsilon from 0 to {LARGEST_EPSILON}")
        for since in (self.project_since, self.researcher_since):
            if since is not None and since.tzinfo is None:
                raise ValueError("a period starts at an aware moment")

    def of(self, account: Account) -> Iterator[tuple[Cap, Selection, datetime | None, float]]:
        """Yield each cap with what counts against it, since when, and its ε."""
        yield Cap.NODE, Selection(), None, self.epsilon_total
        yield Cap.DATASET, Selection(dataset=account.dataset), None, self.epsilon_dataset
        yield Cap.PROJECT, Selection(project=account.project), self.project_since, self.epsilon_project
        yield (
            Cap.RESEARCHER,
            Selection(researcher=account.researcher),
            self.researcher_since,
            self.epsilon_researcher,
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """Some of the accounts: those with the named project, researcher and dataset; None stands for any."""

    project: str | None = None
    researcher: str | None = None
    dataset: str | None = None

    def holds(self, account: Account) -> bool:
        """Return whether `account` is one of them."""
        return (
            self.project in (None, account.project)
            and self.researcher in (None, account.researcher)
            and self.dataset in (None, account.dataset)
        )

    @classmethod
    def around(cls, account: Account) -> Iterator[Selection]:
        """Yield the eight selections that hold `account`."""
        choices = ((None, account.project), (None, account.researcher), (None, account.dataset))
        for project, researcher, dataset in product(*choices):
            yield cls(project, researcher, dataset)


class Sum:
    """A composition that grows in place; equal releases are counted, so that no order matters."""

    __slots__ = ("gaussian", "pure", "sampled")

    def __init__(self) -> None:
        self.gaussian: dict[float, int] = {}  # how many by noise multiplier
        self.pure: dict[float, int] = {}  # how many by ε
        self.sampled: dict[tuple[float, float], int] = {}  # how many by noise multiplier and sampling rate

    def add(self, event: Event) -> None:
        """Add the releases of one event."""
        if isinstance(event, GaussianEvent):
            _count(self.gaussian, event.noise_multiplier, event.count)
        elif isinstance(event, PureEvent):
            _count(self.pure, event.epsilon, event.count)
        elif event.sampling_rate == 1.0:
            _count(self.gaussian, event.noise_multiplier, event.count)
        else:
            _count(self.sampled, (event.noise_multiplier, event.sampling_rate), event.count)

    def join(self, other: Sum) -> None:
        """Add all that `other` holds."""
        for multiplier, count in other.gaussian.items():
            _count(self.gaussian, multiplier, count)
        for epsilon, count in other.pure.items():
            _count(self.pure, epsilon, count)
        for kind, count in other.sampled.items():
            _count(self.sampled, kind, count)

    def composition(self) -> Composition:
        """Return it as a value."""
        mu_squared = math.fsum(count / multiplier**2 for multiplier, count in self.gaussian.items())
        releases = sum(sum(kind.values()) for kind in (self.gaussian, self.pure, self.sampled))
        pure, sampled = tuple(sorted(self.pure.items())), tuple(sorted(self.sampled.items()))
        return Composition(mu_squared, releases, pure, sampled)


class Tally:
    """What was committed, by selection and calendar month (UTC).

    Guarantee: nothing that was added ever stops counting against a period that began before it. If the clock
    steps back, what is added counts as of the latest month seen.
    """

    def __init__(self) -> None:
        self._sums: dict[Selection, dict[str, Sum]] = {}
        self._accounts: set[Account] = set()
        self._latest = ""

    def add(self, account: Account, event: Event, *, at: datetime) -> None:
        """Count what `account` committed at the moment `at`."""
        self._latest = max(self._latest, _month(at))
        self._accounts.add(account)
        for selection in Selection.around(account):
            months = self._sums.setdefault(selection, {})
            months.setdefault(self._latest, Sum()).add(event)

    def total(self, selection: Selection, *, since: datetime | None = None) -> Sum:
        """Return a new sum of what the selected accounts committed since the month that `since` lies in."""
        found = Sum()
        first = "" if since is None else _month(since)
        for month, part in self._sums.get(selection, {}).items():
            if month >= first:
                found.join(part)
        return found

    def accounts(self) -> frozenset[Account]:
        """Return the accounts that committed anything."""
        return frozenset(self._accounts)


def _month(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m")


def _count(counts: dict[Kind, int], key: Kind, count: int) -> None:
    counts[key] = counts.get(key, 0) + count
