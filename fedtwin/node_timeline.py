"""Timelines, exports, snapshots and provenance from the command line: for staff, and each look is audited."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fedtwin.node_ingest import open_store
from fedtwin.node_staff import person_mark, record
from fedtwin.screen import Exit, Stop
from node import provenance, timeline_meds, timeline_snapshot
from node.audit import lines
from node.audit_events import AuditEvent
from node.home import NodeHome
from node.omop.errors import NoSuchTable
from node.timeline import BadWindow, NoSuchPerson, deltas, hidden_events, moment, rows, timeline, window
from node.timeline_sql import Scope, Unrecorded
from node.timeline_tables import EventKind
from protocols.clock import SystemClock


def scope_of(
    *,
    person_id: int | None,
    as_of: str,
    span: str,
    kinds: Iterable[str],
    unrecorded: str,
    upto_load: int | None,
) -> Scope:
    """Return which events the options name. Raises: Stop(USAGE)."""
    try:
        known = moment(as_of, whole_day=True) if as_of else None
        if known is not None and len(as_of) == len("2020-01-01"):
            known -= timedelta(microseconds=1)  # the last moment of that day
        start, end = window(span, as_of=known, now=SystemClock().now()) if span else (None, None)
    except BadWindow as error:
        raise Stop(Exit.USAGE, str(error)) from None
    try:
        wanted = tuple(EventKind(kind) for kind in kinds) or tuple(EventKind)
    except ValueError:
        raise Stop(Exit.USAGE, f"a kind is one of {', '.join(EventKind)}") from None
    try:
        mode = Unrecorded(unrecorded)
    except ValueError:
        raise Stop(Exit.USAGE, f"--unrecorded is one of {', '.join(Unrecorded)}") from None
    return Scope(person_id, known, start, end, wanted, mode, upto_load)


def read(home: Path, scope: Scope, *, changes: bool) -> dict[str, Any]:
    """Return one person's timeline. The audit trail says that it was read before it is. Raises: Stop."""
    where = NodeHome(home)
    assert scope.person_id is not None, "one person's"
    with open_store(home, read_only=True) as store:
        record(where, AuditEvent.TIMELINE_READ, person=person_mark(where, scope.person_id))
        try:
            found = timeline(store, scope)
            listed = rows(store, found)
            fields: dict[str, Any] = {
                "person_id": scope.person_id,
                "as_of": _iso(scope.as_of),
                "start": _iso(scope.start),
                "end": _iso(scope.end),
                "epoch": store.epoch(),
                "hidden_unrecorded": hidden_events(store, scope),
                "count": len(listed),
                "events": listed,
            }
            if changes:
                fields["deltas"] = [
                    row | {"time": _iso(row["time"])} for row in deltas(store, scope).to_pylist()
                ]
        except NoSuchPerson as error:
            raise Stop(Exit.USAGE, str(error)) from None
    return fields


def export(home: Path, folder: Path, scope: Scope) -> dict[str, Any]:
    """Write everybody's events as a MEDS dataset. Raises: Stop."""
    with open_store(home, read_only=True) as store:
        record(NodeHome(home), AuditEvent.EVENTS_EXPORTED, kind="meds")
        try:
            written = timeline_meds.export(store, folder, scope=scope, now=SystemClock().now())
        except timeline_meds.FolderNotEmpty as error:
            raise Stop(Exit.USAGE, str(error)) from None
    return asdict(written)


def provenance_of(home: Path, table: str, record_id: int) -> dict[str, Any]:
    """Return where a record comes from and who has read it. Raises: Stop."""
    where = NodeHome(home)
    with open_store(home, read_only=True) as store:
        try:
            found = provenance.trace(store, table, record_id)
        except NoSuchTable:
            raise Stop(Exit.USAGE, "no such table of the CDM is in this store") from None
        except provenance.NoSuchRecord as error:
            raise Stop(Exit.USAGE, str(error)) from None
    mark = None if found.person_id is None else person_mark(where, found.person_id)
    readers = provenance.readers(lines(where.audit), table=table, since=found.loaded_at, person=mark or "")
    record(where, AuditEvent.PROVENANCE_READ, table=table, person=mark)
    return {
        "table": table,
        "record_id": record_id,
        "person_id": found.person_id,
        "origins": list(found.origins),
        "read_by": readers,
    }


def take_snapshot(home: Path, name: str, *, upto_load: int | None, keep: bool) -> dict[str, Any]:
    """Take a snapshot. Raises: Stop."""
    where = NodeHome(home)
    with open_store(home, read_only=True) as store:
        record(where, AuditEvent.EVENTS_EXPORTED, kind="snapshot")
        try:
            return timeline_snapshot.take(
                store, where.snapshots, name, now=SystemClock().now(), upto_load=upto_load, keep=keep
            )
        except FileExistsError:
            raise Stop(Exit.USAGE, "there is a snapshot of this name") from None
        except (timeline_snapshot.BadName, timeline_snapshot.NoSuchLoad) as error:
            raise Stop(Exit.USAGE, str(error)) from None


def verify_snapshot(home: Path, name: str) -> dict[str, Any]:
    """Make a snapshot again and say how it differs from what was taken. Raises: Stop."""
    where = NodeHome(home)
    with open_store(home, read_only=True) as store:
        try:
            manifest = timeline_snapshot.manifest_of(where.snapshots, name)
            difference = timeline_snapshot.compare(store, where.snapshots, name)
        except timeline_snapshot.NoSuchSnapshot:
            raise Stop(Exit.USAGE, "there is no whole snapshot of this name") from None
        timeline_snapshot.purge(store, where.snapshots)
    return {
        "name": name,
        "same": difference.same,
        **asdict(difference),
        "kept": manifest["kept"],
        "usable": difference.same or bool(manifest["kept"]),
        "sha256": manifest["sha256"],
    }


def list_snapshots(home: Path) -> list[dict[str, Any]]:
    """Return the manifests of all snapshots, oldest first, without their loads."""
    found = timeline_snapshot.snapshots(NodeHome(home).snapshots)
    return [manifest | {"loads": len(manifest["loads"])} for manifest in found]


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat().replace("+00:00", "Z")
