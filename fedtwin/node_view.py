"""What hospital staff see of their own node. Reads files only; works beside a serving node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from node import audit
from node.policy import EVERY_PROJECT, Policy
from node.training.approvals import Approvals
from privacy.ledger import Caps, Ledger
from protocols.clock import Clock
from protocols.study import Study

STORE = Path("store") / "omop.duckdb"
LEDGER = Path("ledger.sqlite")
AUDIT = Path("audit.jsonl")
POLICY = Path("policy.toml")


def budget(home: Path, *, clock: Clock) -> dict[str, Any]:
    """Return what was spent and what is left, in all and for each project that the policy or the ledger names.

    Raises: Refused(NO_POLICY); MalformedPolicy; ChainBroken.
    """
    policy = Policy.load(home / POLICY)
    path = home / LEDGER
    if not path.exists():
        return {
            "delta": policy.budget_delta,
            "spent": {"epsilon": 0.0, "events": 0},
            "left": {"epsilon": policy.epsilon_total, "largest_question": policy.epsilon_total},
            "cap": policy.epsilon_total,
            "projects": {},
        }
    with Ledger(path, clock=clock, read_only=True) as ledger:
        delta = policy.budget_delta
        spent = ledger.spent(delta=delta)
        total = Caps(delta=delta, epsilon_total=policy.epsilon_total, epsilon_project=policy.epsilon_total)
        left = ledger.left(total, EVERY_PROJECT)
        return {
            "delta": delta,
            "spent": {"epsilon": spent.epsilon, "events": spent.events},
            "left": {"epsilon": left.epsilon, "largest_question": left.largest_question},
            "cap": policy.epsilon_total,
            "projects": {name: _project(name, ledger, policy) for name in _projects(ledger, policy)},
        }


def _projects(ledger: Ledger, policy: Policy) -> list[str]:
    return sorted({*ledger.projects(), *policy.epsilon_by_project} - {EVERY_PROJECT})


def _project(name: str, ledger: Ledger, policy: Policy) -> dict[str, Any]:
    spent = ledger.spent(name, delta=policy.budget_delta)
    cap = policy.epsilon_by_project.get(name, policy.epsilon_by_project.get(EVERY_PROJECT, 0.0))
    caps = Caps(policy.budget_delta, policy.epsilon_total, cap)
    left = ledger.left(caps, name)
    return {
        "spent": {"epsilon": spent.epsilon, "events": spent.events},
        "left": {"epsilon": left.epsilon, "largest_question": left.largest_question},
        "cap": cap,
    }


def ledger_entries(home: Path, *, clock: Clock) -> int:
    """Check the ledger's chain and return its length. Raises: ChainBroken."""
    with Ledger(home / LEDGER, clock=clock, read_only=True) as ledger:
        return ledger.verify()


def audit_entries(home: Path) -> int:
    """Check the audit trail's chain and return its length. Raises: AuditBroken, FileNotFoundError."""
    return audit.verify(home / AUDIT)


def studies(home: Path) -> list[dict[str, Any]]:
    """Return the plans that wait for this hospital's decision, and those it approved."""
    approvals = Approvals(home)
    waiting = [_study(p.study, "pending", proposed_by=p.proposed_by) for p in approvals.pending()]
    return waiting + [_study(study, "approved", proposed_by=None) for study in approvals.approved()]


def _study(study: Study, status: str, *, proposed_by: str | None) -> dict[str, Any]:
    return {
        "plan_hash": study.plan_hash().hex(),
        "name": study.name,
        "project": study.project,
        "status": status,
        "proposed_by": proposed_by,
        "model": study.model,
        "epsilon": study.privacy.epsilon,
        "delta": study.privacy.delta,
        "rounds": study.training.rounds,
        "steps": study.training.steps,
        "tables": sorted(study.tables),
        "minimum_sites": study.sites.minimum,
    }
