"""What a node was asked, decided, charged and sent: one hash-chained line of JSON each, durable on return.

Events and fields come from the closed lists of `node.audit_events`, and every field has a form that a record,
a name or a sentence does not fit: numbers, identifiers, digests, codes. An auditor may see the file as it is.

An edited, removed or reordered line breaks the chain. A removed tail leaves a whole but shorter chain: the
head is therefore kept in `<file>.head` too, and `ledger_head` ties each charge to the ledger's own chain.
Whoever can write all of these can rewrite them; ship the lines elsewhere (`tail`) to have a witness.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from node.audit_events import FIELDS, AuditEvent, NotAuditable
from protocols import canonical
from protocols.clock import Clock
from protocols.ids import NodeId, QuestionId, SessionId

GENESIS = "0" * 64
MAX_LINE_BYTES = 16_384
HEAD_BYTES = 96  # one line of fixed length: rewritten in place, inside one disk sector
TAIL_BYTES = 2 * MAX_LINE_BYTES  # enough to hold the last whole line, whatever comes before it


class AuditBroken(Exception):
    """The file is not what was written. `line` is the first that is wrong, counted from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"audit line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One recorded event."""

    seq: int
    at: str
    event: str
    fields: Mapping[str, Any]
    hash: str


class AuditLog:
    """The node's audit trail. Threads share it, and several processes of the node may append to one file."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """Open the trail at `path`, made if absent; a last line that a crash cut off is dropped and noted.

        Raises: AuditBroken if what stands at the end is not the line that was written last.
        """
        self._path = path
        self._clock = clock
        self._mutex = threading.Lock()
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        try:
            self._append([])
        except BaseException:
            self.close()
            raise

    def record(self, event: AuditEvent | str, **fields: Any) -> AuditLine:
        """Append one event, durably. Identifiers may be given as the types of `protocols.ids`.

        Raises: NotAuditable; AuditBroken.
        """
        return self.record_all([(event, fields)])[0]

    def record_all(self, entries: Sequence[tuple[AuditEvent | str, Mapping[str, Any]]]) -> list[AuditLine]:
        """Append events in order, all durable on return, with one wait for the disk.

        Nothing is appended if one of them may not be. Raises: NotAuditable; AuditBroken.
        """
        return self._append([_checked(event, fields) for event, fields in entries])

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._mutex:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _append(self, entries: Sequence[tuple[AuditEvent, dict[str, Any]]]) -> list[AuditLine]:
        with self._mutex:
            fcntl.flock(self._file, fcntl.LOCK_EX)  # other processes of this node wait
            try:
                torn = self._drop_torn_end()
                last = self._last()
                if torn:
                    recovered = self._write([(AuditEvent.LINE_RECOVERED, {})], last)[-1]
                    last = (recovered.seq, recovered.hash)
                return self._write(entries, last)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(
        self, entries: Sequence[tuple[AuditEvent, dict[str, Any]]], last: tuple[int, str]
    ) -> list[AuditLine]:
        """Write lines behind the one of number and hash `last`."""
        data, made = b"", []
        for event, fields in entries:
            seq, at = last[0] + 1, self._clock.now().isoformat()
            body = {"seq": seq, "at": at, "event": event.value, "fields": fields, "previous": last[1]}
            digest = canonical.digest(body).hex()
            line = canonical.encode({**body, "hash": digest}) + b"\n"
            if len(line) > MAX_LINE_BYTES:
                raise NotAuditable("the line is too long")
            data += line
            last = (seq, digest)
            made.append(AuditLine(seq, at, event.value, fields, digest))
        if made:
            if os.write(self._file, data) != len(data):
                raise OSError("the audit lines were not written whole")
            os.fsync(self._file)
            _write_head(_head_path(self._path), *last)
        return made

    def _last(self) -> tuple[int, str]:
        """Return number and hash of the last line, (0, GENESIS) for an empty file. Raises: AuditBroken."""
        end = self._end()
        last = (0, GENESIS)
        if end:
            body, digest = _parsed(end[:-1].rpartition(b"\n")[2], 0)
            last = (body["seq"], digest)
        head = _read_head(_head_path(self._path))
        if head is not None and (head[0] > last[0] or (head[0] == last[0] and head[1] != last[1])):
            raise AuditBroken(last[0] + 1, "the end was cut off or rewritten")
        return last

    def _drop_torn_end(self) -> bool:
        """Cut off a last line that has no end. It was never acknowledged: `record` returns after the sync."""
        end = self._end()
        if not end or end.endswith(b"\n"):
            return False
        size = os.fstat(self._file).st_size
        os.ftruncate(self._file, size - len(end) + end.rfind(b"\n") + 1)
        os.fsync(self._file)
        return True

    def _end(self) -> bytes:
        size = os.fstat(self._file).st_size
        return os.pread(self._file, TAIL_BYTES, max(0, size - TAIL_BYTES))


def lines(path: Path) -> Iterator[AuditLine]:
    """Yield every line, checked, oldest first. A last line without its end (a crash) is left out.

    Raises: AuditBroken.
    """
    previous, number = GENESIS, 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                return
            body, digest = _parsed(raw[:-1], number)
            if body["seq"] != number or body["previous"] != previous:
                raise AuditBroken(number, "not the successor of the line before it")
            previous = digest
            yield AuditLine(number, body["at"], body["event"], body["fields"], digest)


def verify(path: Path) -> int:
    """Check every line, its links and the head beside the file; return the number of lines.

    Raises: AuditBroken; FileNotFoundError.
    """
    head = _read_head(_head_path(path))  # before the lines: a node that goes on meanwhile only adds to them
    hashes = [line.hash for line in lines(path)]
    if head is None and len(hashes) > 1:
        raise AuditBroken(len(hashes), "the head beside the file is missing")
    if head is not None and (head[0] > len(hashes) or hashes[head[0] - 1] != head[1]):
        raise AuditBroken(min(head[0], len(hashes) + 1), "the end was cut off or rewritten")
    return len(hashes)


def tail(path: Path, count: int) -> list[AuditLine]:
    """Return the last `count` lines, all checked. Raises: AuditBroken; FileNotFoundError."""
    return list(lines(path))[-count:] if count > 0 else []


def _checked(event: AuditEvent | str, fields: Mapping[str, Any]) -> tuple[AuditEvent, dict[str, Any]]:
    try:
        known = AuditEvent(event)
    except ValueError:
        raise NotAuditable("not an event of the closed list") from None
    plain = {name: _plain(value) for name, value in fields.items() if value is not None}
    for name, value in plain.items():
        if name not in FIELDS:
            raise NotAuditable("not a field of the closed list")
        if not FIELDS[name](value):
            raise NotAuditable(f"field {name}: not of its form")
    return known, plain


def _plain(value: Any) -> Any:
    if isinstance(value, NodeId | QuestionId | SessionId):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return value.value if isinstance(value, StrEnum) else value


def _parsed(raw: bytes, number: int) -> tuple[dict[str, Any], str]:
    try:
        body = canonical.decode(raw, max_bytes=MAX_LINE_BYTES)
        digest = body.pop("hash")
        if set(body) != {"seq", "at", "event", "fields", "previous"}:
            raise KeyError("keys")
    except (canonical.MalformedJson, AttributeError, KeyError) as error:
        raise AuditBroken(number, "not an audit line") from error
    if hashlib.sha256(canonical.encode(body)).hexdigest() != digest:
        raise AuditBroken(number, "edited")
    return body, digest


def _head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _write_head(path: Path, seq: int, digest: str) -> None:
    handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.pwrite(
            handle, f"{seq} {digest}".ljust(95).encode() + b"\n", 0
        )  # not synced: it may lag, never lead
    finally:
        os.close(handle)


def _read_head(path: Path) -> tuple[int, str] | None:
    try:
        seq, _, digest = path.read_text(encoding="ascii").strip().partition(" ")
    except FileNotFoundError:
        return None
    if not digest and not seq:
        return None  # made and not yet written when the machine stopped
    if not seq.isdigit() or int(seq) < 1:
        raise AuditBroken(0, "the head beside the file is not a head")
    return int(seq), digest
