"""What hospital staff see of their own node. Reads files only; works beside a serving node."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

from fedtwin.node_budget import budget
from fedtwin.study_words import plan_words
from node import audit
from node.home import NodeHome
from node.training.approvals import Approvals
from privacy.ledger import Ledger
from protocols.clock import Clock
from protocols.refusal import Refused
from protocols.roster import fingerprint
from protocols.study import Study

LEDGER = Path("ledger.sqlite")
AUDIT = Path("audit.jsonl")
LOOK_S = 30.0  # to count the patients of a warehouse


def status(home: Path, *, clock: Clock) -> dict[str, Any]:
    """Return who this node is, whether it serves and is connected, and what it holds and may still spend."""
    from node.keys import NodeKeys

    where = NodeHome(home)
    config, now = where.config(), _serving(home)
    try:
        left: float | None = budget(home, clock=clock)["left"]["epsilon"]
    except (Refused, ValueError):
        left = None
    plans = studies(home)
    return {
        "node_id": str(config.node_id),
        "name": config.name,
        "consortium": str(config.consortium),
        "home": str(home),
        "serving": bool(now.get("running")),
        "connected": bool(now.get("connected")),
        "connected_since": now.get("connected_since"),
        "last_error": now.get("last_error") or None,
        "revoked": bool(now.get("revoked")),
        "roster_version": now.get("roster_version"),
        "broker_address": config.broker_address,
        "fingerprint": fingerprint(NodeKeys.load(where.keys).identity_public),
        "policy": where.policy.is_file(),
        "patients": patients(home),
        "data": data(home),
        "epsilon_left": left,
        "studies_pending": sum(plan["status"] == "pending" for plan in plans),
        "studies_approved": sum(plan["status"] == "approved" for plan in plans),
    }


def _serving(home: Path) -> dict[str, Any]:
    """Return what the serving process last wrote about itself; nothing if it is gone."""
    from node.serve import STATUS_FILE

    try:
        found: dict[str, Any] = json.loads((home / STATUS_FILE).read_bytes())
        os.kill(int(found["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return {}  # it never ran, or was killed: a dead process writes no farewell
    return found


def patients(home: Path) -> int | None:
    """Return how many patients questions can find; None without a store, or while an ingest writes to it."""
    from node.omop.errors import StoreError
    from node.stores import Stores, look

    with closing(Stores(NodeHome(home))) as stores:
        try:
            return look(stores.open(), time_s=LOOK_S).persons
        except (StoreError, Refused):
            return None


def data(home: Path) -> dict[str, Any]:
    """Return how good the data were found to be, and whether studies are joined with them."""
    from fedtwin.doctor_data import last_report
    from fedtwin.node_quality import verdict

    report = last_report(home)
    return {
        "checked_at": report and report["made_at"],
        "pass_rate": report and report["summary"]["pass_rate"],
        "mapped": report and report["mapping"]["share"],
        "joins_studies": verdict(home, report)["joins_studies"] if report else None,
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


def study_in_words(home: Path, digits: str) -> dict[str, Any]:
    """Return one of these plans, whole and in words. Raises: NoSuchPlan."""
    approvals = Approvals(home)
    study = approvals.named(digits)
    approved = approvals.is_approved(study.plan_hash())
    proposer = None if approved else approvals.proposer(study.plan_hash())
    fields = _study(study, "approved" if approved else "pending", proposed_by=proposer)
    return fields | {"words": plan_words(study), "plan": study.to_json()}


def _study(study: Study, status: str, *, proposed_by: str | None) -> dict[str, Any]:
    return {
        "plan_hash": study.plan_hash().hex(),
        "name": study.name,
        "project": study.project,
        "status": status,
        "proposed_by": proposed_by,
        "model": study.model,
        "epsilon": study.privacy.epsilon if study.exact is None else None,  # without noise none holds
        "delta": study.privacy.delta if study.exact is None else None,
        "rounds": study.training.rounds,
        "steps": study.training.steps,
        "tables": sorted(study.tables),
        "minimum_sites": study.sites.minimum,
    }
