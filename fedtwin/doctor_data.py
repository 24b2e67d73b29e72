"""What `fedtwin node doctor` says of a node's data: good enough for studies, mapped, nothing left lying."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fedtwin.doctor import Finding, Health
from protocols.clock import Clock

WELL_MAPPED = 0.8  # where the policy asks nothing: below it, every fifth record is in no concept set
LEFT_AFTER = timedelta(hours=1)  # what an hour has not touched, no running process is writing
# What a process that was killed may leave: drafts of private files, parts of downloads, stages, spilled rows.
_LEFT = re.compile(r"\.[^/]+\.[0-9a-f]{8}|\.drafts|.+\.part|.*\bstage\b.*|.+\.duckdb\.tmp")


def quality(home: Path, clock: Clock) -> Finding:
    """Whether the data are as good as the policy asks, by the last report on them."""
    from fedtwin.node_quality import verdict
    from node.home import NodeHome

    report = last_report(home)
    again = "fedtwin node quality"
    if report is None:
        demanded = _demanded(home)
        if demanded:
            return Finding(
                "quality", Health.FAIL, "no report, and the policy asks for one: studies are refused", again
            )
        if not NodeHome(home).store.is_file():
            return Finding("quality", Health.OK, "no data yet, and nothing asked of them")
        return Finding("quality", Health.WARN, "the data were never checked", again)
    told = verdict(home, report)
    made = f"checked on {report['made_at'][:10]}"
    rate = report["summary"]["pass_rate"]
    seen = f"{made}: {'no check applied' if rate is None else f'{rate:.1%} of checks passed'}"
    if not told["joins_studies"]:
        to_do = "see `fedtwin node quality`, correct the sources or their mappings, check again"
        return Finding("quality", Health.FAIL, f"{seen}; {told['says']}", to_do)
    if told["demands"] is None:
        return Finding("quality", Health.OK, f"{seen}; {told['says']}")
    if report["epoch"] != (epoch(home) or report["epoch"]):
        return Finding("quality", Health.WARN, f"{seen}; the data have changed since", again)
    return Finding("quality", Health.OK, f"{seen}; {told['says']}")


def mapped(home: Path, _: Clock) -> Finding:
    """How many records have a standard concept, by the last report."""
    report = last_report(home)
    if report is None:
        return Finding("mapping", Health.OK, "not known: fedtwin node quality")
    share = report["mapping"]["share"]
    if share is None:
        return Finding("mapping", Health.OK, "no records")
    demand = _demanded(home)
    asked = demand.min_mapping_coverage if demand else WELL_MAPPED
    seen = f"{1 - share:.1%} of records have no standard concept"
    if share >= asked:
        return Finding("mapping", Health.OK, seen)
    tables = sorted(report["mapping"]["tables"], key=lambda table: table["mapped"] - table["records"])
    most = ", ".join(table["table"] for table in tables[:2] if table["mapped"] < table["records"])
    to_do = "fedtwin node map suggest; a download of Athena knows more codes than the starter vocabulary"
    return Finding("mapping", Health.WARN, f"{seen}, most of them in {most}", to_do)


def key_holder(home: Path, _: Clock) -> Finding:
    """Whether sums can be encrypted, where the consortium wants that."""
    from node.home import NodeHome
    from node.key_holder import encrypted, require_library, trusted
    from node.roster import RosterKeeper
    from privacy.encryption import MissingExtra
    from protocols.refusal import RefusalCode, Refused

    roster = RosterKeeper.open(NodeHome(home)).current
    mine = trusted(home)
    try:
        found = encrypted(roster, trusted=mine)
        require_library(roster)
    except Refused as error:
        if error.code is RefusalCode.KEY_HOLDER_AWAY:
            return Finding("key-holder", Health.WARN, "the roster lists none yet", "ask the lead")
        seen = "the roster's is not the one that is trusted here" if mine else "none is trusted here"
        to_do = "fedtwin node trust-keyholder FINGERPRINT, as the key-holder itself says it"
        return Finding("key-holder", Health.FAIL, f"{seen}: encrypted sums are refused", to_do)
    except MissingExtra as error:
        return Finding("key-holder", Health.FAIL, str(error), "install it and restart the node")
    if found is None:
        return Finding("key-holder", Health.OK, "not needed: sums are masked")
    return Finding("key-holder", Health.OK, "the trusted one is in the roster")


def leftovers(home: Path, clock: Clock) -> Finding:
    """What processes that were killed left behind."""
    found = list(left(home, now=clock.now()))
    if not found:
        return Finding("leftovers", Health.OK, "none")
    size = sum(_size(path) for path in found)
    shown = ", ".join(str(path.relative_to(home)) for path in sorted(found)[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    to_do = "a process was killed: remove them while no ingest, pull or listener runs"
    return Finding("leftovers", Health.WARN, f"{size / 2**20:.1f} MiB: {shown}{more}", to_do)


def left(home: Path, *, now: datetime) -> Iterator[Path]:
    """Yield drafts and stages that nobody has touched for an hour."""
    for path in home.rglob("*"):
        if _LEFT.fullmatch(path.name) and not any(_LEFT.fullmatch(above.name) for above in path.parents):
            touched = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            if now - touched > LEFT_AFTER:
                yield path


def last_report(home: Path) -> dict[str, Any] | None:
    """Return the last report on the data; None without one, or with one that is damaged."""
    from node.home import NodeHome
    from node.quality.report import DamagedReport, Standing
    from node.quality.standing import MAX_REPORT_BYTES
    from protocols import canonical

    try:
        found: dict[str, Any] = canonical.decode(
            NodeHome(home).quality.read_bytes(), max_bytes=MAX_REPORT_BYTES
        )
        Standing.of(found)
    except (FileNotFoundError, canonical.MalformedJson, DamagedReport):
        return None
    return found


def epoch(home: Path) -> str | None:
    """Return the name of the store's present content; None while another process writes to it."""
    from node.home import NodeHome
    from node.omop.errors import StoreError
    from node.omop.store import OmopStore

    try:
        with OmopStore.open(NodeHome(home).store, read_only=True) as store:
            return store.epoch()
    except StoreError:
        return None


def _demanded(home: Path) -> Any:
    from node.home import NodeHome
    from node.policy import Policy
    from protocols.refusal import Refused

    try:
        return Policy.load(NodeHome(home).policy).quality
    except (Refused, ValueError):  # said by another check
        return None


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size
