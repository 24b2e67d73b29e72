"""Sets of data that can be made again: what loads up to one brought, named, hashed, and checked when used.

A snapshot is a folder: `manifest.json` (which loads, how many rows, a digest of all), `persons.parquet` (a
digest for each person), and with `keep` the rows themselves in `events.parquet`.

Guarantee: rows that a snapshot gives are exactly those it was taken of, but for persons who have withdrawn
since; their rows are given by no snapshot. A later version of a record changes nothing of it. If the store
can no longer make them (persons turned out to be one, a file was read anew by a later reader) they come from
the kept rows, and without these `SnapshotChanged` says for how many persons.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from node.omop.store import OmopStore
from node.timeline import BATCH_ROWS, batches, reading
from node.timeline_sql import ORDER_BY, SCHEMA, Scope, events, filled
from privacy import private_files
from protocols import canonical

FORMAT = "fedtwin-snapshot-v1"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MAX_MANIFEST_BYTES = 64_000_000  # a hundred thousand loads
# What a row's digest is over: all but in which load it came, which a new store has other.
HASHED = tuple(name for name in SCHEMA.names if name != "load_id")
_PERSON = ("gender_concept_id", "year_of_birth", "race_concept_id", "ethnicity_concept_id")


class NoSuchLoad(LookupError):
    """The store has no load of this number."""


class BadName(ValueError):
    """A snapshot's name is 1 to 64 of a-z, 0-9, '.', '_' and '-'."""


class NoSuchSnapshot(LookupError):
    """There is none of this name, or it is damaged."""


class SnapshotChanged(Exception):
    """The store no longer holds what the snapshot was taken of, and its rows were not kept."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(
            f"other rows than were taken: {difference.changed} persons changed, {difference.gone} gone,"
            f" {difference.new} new"
        )
        self.difference = difference


@dataclass(frozen=True, slots=True)
class Difference:
    """How the store differs from a snapshot, in persons. `withdrawn` ones are no change."""

    changed: int
    gone: int
    new: int
    withdrawn: int

    @property
    def same(self) -> bool:
        """Whether the snapshot can be made again out of the store."""
        return not (self.changed or self.gone or self.new)


def take(
    store: OmopStore, folder: Path, name: str, *, now: datetime, upto_load: int | None = None, keep: bool
) -> dict[str, Any]:
    """Take a snapshot of what loads up to `upto_load` (all) brought, and return its manifest.

    Raises: BadName; NoSuchLoad; FileExistsError.
    """
    if not NAME.fullmatch(name):
        raise BadName("a snapshot's name is 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    with reading(store) as cursor:
        loads = _loads(cursor, upto_load)
        scope = Scope(upto_load=loads[-1]["load_id"])
        digests = _digests(store, cursor, scope)
    private_files.make_folder(folder)
    (folder / name).mkdir(mode=0o700)
    _write(folder / name / "persons.parquet", digests)
    if keep:
        _write_rows(store, folder / name / "events.parquet", scope)
    manifest = {
        "format": FORMAT,
        "name": name,
        "made_at": now.astimezone(UTC).isoformat(),
        "epoch": store.epoch(),
        "upto_load": scope.upto_load,
        "loads": loads,
        "columns": list(HASHED),
        "persons": digests.num_rows,
        "rows": sum(digests["rows"].to_pylist()),
        "sha256": _total(digests),
        "kept": keep,
    }
    private_files.write(folder / name / "manifest.json", canonical.encode(manifest))
    return manifest


def manifest_of(folder: Path, name: str) -> dict[str, Any]:
    """Return the manifest of a snapshot. Raises: NoSuchSnapshot."""
    if not NAME.fullmatch(name):
        raise NoSuchSnapshot(name)
    try:
        data = (folder / name / "manifest.json").read_bytes()
        found = canonical.decode(data, max_bytes=MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError, canonical.MalformedJson):
        raise NoSuchSnapshot(name) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise NoSuchSnapshot(name)
    digests = pq.read_table(folder / name / "persons.parquet")
    if _total(digests) != found["sha256"]:
        raise NoSuchSnapshot(name)
    return found


def snapshots(folder: Path) -> list[dict[str, Any]]:
    """Return the manifests of all snapshots, oldest first."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return sorted((manifest_of(folder, name) for name in names), key=lambda found: str(found["made_at"]))


def compare(store: OmopStore, folder: Path, name: str) -> Difference:
    """Make the snapshot again and say how it differs from what was taken. Raises: NoSuchSnapshot."""
    found = manifest_of(folder, name)
    with reading(store) as cursor:
        now = _by_person(_digests(store, cursor, Scope(upto_load=found["upto_load"])))
        withdrawn = _withdrawn(store, cursor)
    then = _by_person(pq.read_table(folder / name / "persons.parquet"))
    left = then.keys() & withdrawn
    return Difference(
        changed=sum(then[person] != now[person] for person in (then.keys() & now.keys()) - left),
        gone=len(then.keys() - now.keys() - left),
        new=len(now.keys() - then.keys() - withdrawn),
        withdrawn=len(left),
    )


def rows(store: OmopStore, folder: Path, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the snapshot's events, person by person in order: those that were taken, and no others.

    Raises: NoSuchSnapshot; SnapshotChanged.
    """
    found = manifest_of(folder, name)
    difference = compare(store, folder, name)
    if difference.same:
        yield from batches(store, Scope(upto_load=found["upto_load"]))
        return
    if not found["kept"]:
        raise SnapshotChanged(difference)
    with reading(store) as cursor:
        gone = pa.array(sorted(_withdrawn(store, cursor)), pa.int64())
    with pq.ParquetFile(folder / name / "events.parquet") as file:
        for batch in file.iter_batches(BATCH_ROWS):
            stays = pa.compute.invert(pa.compute.is_in(batch["person_id"], value_set=gone))
            yield batch.filter(stays).cast(SCHEMA)


def purge(store: OmopStore, folder: Path) -> int:
    """Take persons who withdrew out of all kept rows, for good; return how many rows went."""
    removed = 0
    with reading(store) as cursor:
        gone = pa.array(sorted(_withdrawn(store, cursor)), pa.int64())
    for found in snapshots(folder) if len(gone) else ():
        path = folder / found["name"] / "events.parquet"
        if not found["kept"]:
            continue
        table = pq.read_table(path)
        left = table.filter(pa.compute.invert(pa.compute.is_in(table["person_id"], value_set=gone)))
        if left.num_rows < table.num_rows:
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            _write(fresh, left)
            fresh.replace(path)
            removed += table.num_rows - left.num_rows
    return removed


def _loads(cursor: duckdb.DuckDBPyConnection, upto: int | None) -> list[dict[str, Any]]:
    found = cursor.execute(
        "SELECT load_id, source_sha256, mapping_name, mapping_sha256, reader, reader_version,"
        " vocabulary_version FROM fedtwin_load WHERE load_id <= ? ORDER BY load_id",
        [2**63 - 1 if upto is None else upto],
    ).to_arrow_table()
    listed: list[dict[str, Any]] = found.to_pylist()
    if not listed or (upto is not None and listed[-1]["load_id"] != upto):
        raise NoSuchLoad(
            "no load of this number: see `fedtwin node sources`" if upto else "nothing was loaded"
        )
    return listed


def _digests(store: OmopStore, cursor: duckdb.DuckDBPyConnection, scope: Scope) -> pa.Table:
    """A row per person: how many events, and the digest of these in their order and of who they are."""
    line = " || ".join(_text(f'e."{name}"') for name in HASHED)
    order = ", ".join(f"e.{name.strip()}" for name in ORDER_BY.split(","))
    who = " || ".join(_text(f"any_value(p.{name})") for name in _PERSON)
    inner = events(store, scope, ordered=False, copied=filled(store, cursor))
    return cursor.execute(
        f"SELECT e.person_id, count(*) AS rows, sha256({who} || chr(10)"  # noqa: S608 (our names)
        f" || string_agg({line}, chr(10) ORDER BY {order})) AS sha256 FROM ({inner}) e"
        " LEFT JOIN person p ON p.person_id = e.person_id GROUP BY e.person_id ORDER BY e.person_id"
    ).to_arrow_table()


def _text(column: str) -> str:
    """A value with its length, so that no two rows have the same text."""
    return f"coalesce(length({column}::VARCHAR) || ':' || {column}::VARCHAR, '-')"


def _total(digests: pa.Table) -> str:
    total = hashlib.sha256()
    for person, digest in zip(digests["person_id"].to_pylist(), digests["sha256"].to_pylist(), strict=True):
        total.update(f"{person} {digest}\n".encode())
    return total.hexdigest()


def _by_person(digests: pa.Table) -> dict[int, str]:
    return dict(zip(digests["person_id"].to_pylist(), digests["sha256"].to_pylist(), strict=True))


def _withdrawn(store: OmopStore, cursor: duckdb.DuckDBPyConnection) -> set[int]:
    if not store.has("fedtwin_withdrawn"):
        return set()
    return {int(row[0]) for row in cursor.execute("SELECT person_id FROM fedtwin_withdrawn").fetchall()}


def _write(path: Path, table: pa.Table) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file:
        pq.write_table(table, file)


def _write_rows(store: OmopStore, path: Path, scope: Scope) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file, pq.ParquetWriter(file, SCHEMA) as writer:
        for batch in batches(store, scope):
            writer.write_batch(batch)
