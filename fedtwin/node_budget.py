"""What a hospital has spent and has left: in all, and per dataset, project and researcher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from node.home import NodeHome
from node.policy import Policy, period_start
from node.policy_form import EVERY
from privacy.budget import NOBODY, Selection
from privacy.ledger import Ledger
from protocols.clock import Clock


@dataclass(frozen=True, slots=True)
class _Cap:
    """One cap, and what counts against it since when."""

    selection: Selection
    epsilon: float
    since: datetime | None


def budget(
    home: Path, *, clock: Clock, project: str | None = None, researcher: str | None = None
) -> dict[str, Any]:
    """Return what was spent and what is left: in all, by dataset, by project and by researcher.

    Args: project, researcher: show this one only among projects and researchers, known or not.
    Raises: Refused(NO_POLICY); MalformedPolicy; ChainBroken.
    """
    where = NodeHome(home)
    policy, now = Policy.load(where.policy), clock.now()
    delta = policy.budget_delta
    with _reading(where.ledger, clock=clock) as ledger:
        accounts = ledger.accounts() if ledger else frozenset()
        projects = _names(policy.epsilon_by_project, {found.project for found in accounts}, project)
        researchers = _names(policy.epsilon_by_researcher, {x.researcher for x in accounts}, researcher)
        datasets = _names(policy.epsilon_by_dataset, {found.dataset for found in accounts}, None)
        by_project = period_start(policy.project_period, now)
        by_researcher = period_start(policy.researcher_period, now)
        return {
            "delta": delta,
            "exact_releases": dict(ledger.exact_releases()) if ledger else {},
            **_line(ledger, _Cap(Selection(), policy.epsilon_total, None), delta=delta),
            "datasets": {
                name: _line(ledger, _Cap(Selection(dataset=name), cap, None), delta=delta)
                for name, cap in datasets.items()
            },
            "projects": {
                name: _line(ledger, _Cap(Selection(project=name), cap, by_project), delta=delta)
                for name, cap in projects.items()
            },
            "researchers": {
                name: _line(ledger, _Cap(Selection(researcher=name), cap, by_researcher), delta=delta)
                for name, cap in researchers.items()
            },
        }


def exact_words(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is to be said of releases without noise, if there were any: in all, then by study."""
    released = report["exact_releases"]
    if not released:
        return
    yield (
        f"exact releases: {sum(released.values())}, for studies without noise that the policy named. "
        "No epsilon covers them: they come on top of all that is shown above."
    )
    for study, count in released.items():
        yield f"  {study}  {count}"


def rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield kind, name and line of each cap in a report, the node's first."""
    yield "node", "all", report
    for kind in ("dataset", "project", "researcher"):
        for name, line in report[f"{kind}s"].items():
            yield kind, name, line


def _line(ledger: Ledger | None, cap: _Cap, *, delta: float) -> dict[str, Any]:
    spent = ever = {"epsilon": 0.0, "events": 0}
    left = {"epsilon": cap.epsilon, "largest_question": cap.epsilon}
    held = 0
    if ledger is not None:
        spent = _spent(ledger, cap.selection, cap.since, delta=delta)
        ever = _spent(ledger, cap.selection, None, delta=delta)
        found = ledger.left_of(cap.selection, cap=cap.epsilon, since=cap.since, delta=delta)
        left = {"epsilon": found.epsilon, "largest_question": found.largest_question}
        held = ledger.open_reservations(cap.selection)
    return {
        "spent": spent,
        "left": left,
        "cap": cap.epsilon,
        "period_start": cap.since.date().isoformat() if cap.since else None,
        "ever": ever,
        "reservations_open": held,
    }


def _spent(ledger: Ledger, chosen: Selection, since: datetime | None, *, delta: float) -> dict[str, Any]:
    found = ledger.spent(
        chosen.project, researcher=chosen.researcher, dataset=chosen.dataset, since=since, delta=delta
    )
    return {"epsilon": found.epsilon, "events": found.events}


def _names(lines: Mapping[str, float], spent: set[str], only: str | None) -> dict[str, float]:
    """Return the cap of each name that has a line or has spent; 0 where the policy no longer covers it."""
    names = {*lines, *spent} - {EVERY, NOBODY} if only is None else {only}
    return {name: lines.get(name, lines.get(EVERY, 0.0)) for name in sorted(names)}


@contextmanager
def _reading(path: Path, *, clock: Clock) -> Iterator[Ledger | None]:
    """Open the ledger for reading; None if nothing was ever charged."""
    if not path.exists():
        yield None
        return
    with Ledger(path, clock=clock, read_only=True) as ledger:
        yield ledger
