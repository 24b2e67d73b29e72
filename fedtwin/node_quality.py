"""Checking a node's data from the command line, and what the policy makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedtwin.node_ingest import open_store
from fedtwin.node_staff import record
from node.audit_events import AuditEvent
from node.home import NodeHome
from node.policy import Policy
from node.policy_form import MalformedPolicy
from node.quality.report import Standing, report
from node.quality.standing import keep
from protocols.clock import SystemClock
from protocols.refusal import Refused


def check(home: Path) -> dict[str, Any]:
    """Run the checks on the store of `home`, keep the report there, and return it. Raises: Stop."""
    where, clock = NodeHome(home), SystemClock()
    with open_store(home, read_only=True) as store:
        found = report(store, now=clock.now())
    keep(where.quality, found)
    record(
        where,
        AuditEvent.QUALITY_CHECKED,
        pass_rate=_text(found["summary"]["pass_rate"]),
        mapping_coverage=_text(found["mapping"]["share"]),
    )
    return found


def verdict(home: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Return what the policy asks of the data, and whether studies are joined with these."""
    try:
        demand = Policy.load(NodeHome(home).policy).quality
    except (Refused, MalformedPolicy) as error:
        return {"demands": None, "joins_studies": False, "code": error.code, "says": error.code.help}
    if demand is None:
        return {
            "demands": None,
            "joins_studies": True,
            "code": None,
            "says": "the policy asks nothing of the data",
        }
    demands = {
        "min_pass_rate": demand.min_pass_rate,
        "min_mapping_coverage": demand.min_mapping_coverage,
        "max_age_days": demand.max_age.days,
    }
    try:
        demand.check(Standing.of(found), now=SystemClock().now())
    except Refused as error:
        short = (
            f"below what the policy asks ({demand.min_pass_rate:g}, {demand.min_mapping_coverage:g}): refused"
        )
        return {"demands": demands, "joins_studies": False, "code": error.code, "says": short}
    return {"demands": demands, "joins_studies": True, "code": None, "says": "as good as the policy asks"}


def _text(share: float | None) -> str | None:
    """A share in the form that the audit trail takes; it is rounded down to six digits."""
    return None if share is None else "1.0" if share >= 1 else f"{int(share * 1e6) / 1e6:.6f}"
