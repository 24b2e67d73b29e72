"""The audit trail: what it can hold, what an edit shows, and what a crash leaves."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node import audit
from node.audit import AuditBroken, AuditLog
from node.audit_events import FIELDS, AuditEvent, NotAuditable
from protocols.clock import FixedClock
from protocols.ids import NodeId, QuestionId, SessionId
from protocols.refusal import RefusalCode

CLOCK = FixedClock(datetime(2026, 11, 21, 8, tzinfo=UTC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[AuditLog]:
    opened = AuditLog(path, clock=CLOCK)
    yield opened
    opened.close()


def fill(log: AuditLog, count: int = 5) -> None:
    for n in range(count):
        log.record(AuditEvent.INPUT_SENT, step=n, bytes_sent=8 * n)


# ---- what a line holds ----


def test_a_decision_is_one_readable_line(log: AuditLog, path: Path) -> None:
    question = QuestionId.new()
    log.record(
        AuditEvent.QUESTION_REFUSED,
        question_id=question,
        project="heart",
        epsilon=0.5,
        code=RefusalCode.BUDGET_EXHAUSTED,
    )
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {
        "seq": 1,
        "at": "2026-11-21T08:00:00+00:00",
        "event": "question-refused",
        "fields": {
            "question_id": str(question),
            "project": "heart",
            "epsilon": 0.5,
            "code": "budget-exhausted",
        },
        "previous": "0" * 64,
        "hash": json.loads(line)["hash"],
    }


def test_identifiers_and_digests_are_written_as_text(log: AuditLog) -> None:
    node, session = NodeId.new(), SessionId.new()
    line = log.record("session-joined", node_id=node, session_id=session, plan_hash=b"\x01" * 32, round=None)
    assert line.fields == {"node_id": str(node), "session_id": str(session), "plan_hash": "01" * 32}


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("question-refused", {"reason": "patient Jane Roe not found"}),
        ("question-refused", {"message": "x"}),
        ("something-happened", {}),
        ("question-refused", {"project": "Jane Roe"}),
        ("question-refused", {"signer": "Jane Roe"}),
        ("question-refused", {"request_id": "Jane Roe"}),
        ("question-refused", {"code": "because"}),
        ("ingested", {"table": "Jane Roe"}),
        ("ingested", {"rows_loaded": "12"}),
        ("ingested", {"rows_loaded": -1}),
        ("ingested", {"rows_loaded": True}),
        ("ingested", {"source_hash": "/data/jane-roe.csv"}),
        ("round-started", {"epsilon": float("nan")}),
        ("round-started", {"epsilon": float("inf")}),
        ("round-started", {"plan_hash": "12"}),
        ("round-started", {"project": ["heart"]}),
    ],
)
def test_what_is_not_on_the_list_is_refused_without_repeating_it(
    log: AuditLog, path: Path, event: str, fields: dict[str, object]
) -> None:
    with pytest.raises(NotAuditable) as refused:
        log.record(event, **fields)
    assert "Roe" not in str(refused.value)
    assert "roe" not in str(refused.value)
    assert path.read_bytes() == b""


def test_no_field_can_hold_a_sentence_or_a_name_with_a_blank() -> None:
    for name, fits in FIELDS.items():
        assert not fits("Jane Roe"), name
        assert not fits("1951-03-02 00:00"), name
        assert not fits({"a": 1}), name


# ---- the chain ----


def test_many_events_are_appended_in_order_and_none_if_one_is_not_on_the_list(
    log: AuditLog, path: Path
) -> None:
    first = log.record(AuditEvent.QUESTION_CANCELLED, question_id=QuestionId(b"q" * 16))
    made = log.record_all([(AuditEvent.QUESTION_CANCELLED, {"attempt": attempt}) for attempt in (1, 2, 3)])
    assert [line.seq for line in made] == [first.seq + 1, first.seq + 2, first.seq + 3]
    assert [line.fields["attempt"] for line in audit.tail(path, 3)] == [1, 2, 3]
    with pytest.raises(NotAuditable):
        log.record_all([(AuditEvent.QUESTION_CANCELLED, {"attempt": 4}), ("invented", {})])
    assert audit.verify(path) == made[-1].seq
    assert log.record_all([]) == []


def test_an_untouched_trail_verifies(log: AuditLog, path: Path) -> None:
    fill(log)
    assert audit.verify(path) == 5
    assert [line.fields["step"] for line in audit.tail(path, 2)] == [3, 4]
    assert audit.tail(path, 0) == []


def test_the_trail_goes_on_after_a_restart(path: Path) -> None:
    for _ in range(3):
        log = AuditLog(path, clock=CLOCK)
        fill(log, 2)
        log.close()
    assert audit.verify(path) == 6


Lines = list[str]
CHANGES: dict[str, Callable[[Lines], Lines]] = {
    "edit a number": lambda old: [line.replace('"bytes_sent":16', '"bytes_sent":17') for line in old],
    "edit a hash": lambda old: [*old[:2], old[2].replace('"hash":"', '"hash":"0'), *old[3:]],
    "remove a line": lambda old: [old[0], *old[2:]],
    "remove the first": lambda old: old[1:],
    "swap two": lambda old: [old[0], old[2], old[1], *old[3:]],
    "repeat one": lambda old: [*old[:2], old[1], *old[2:]],
    "cut the tail": lambda old: old[:-1],
    "cut it all": lambda _: [],
    "add a field": lambda old: [*old[:3], old[3].replace('"seq"', '"note":"x","seq"'), old[4]],
    "a line of something else": lambda old: [*old[:3], "hello\n", old[4]],
}


def rewrite(path: Path, change: str) -> None:
    before = path.read_text().splitlines(keepends=True)
    after = CHANGES[change](before)
    assert after != before
    path.write_text("".join(after))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_trail_does_not_verify(log: AuditLog, path: Path, change: str) -> None:
    fill(log)
    rewrite(path, change)
    with pytest.raises(AuditBroken):
        audit.verify(path)


@pytest.mark.parametrize("change", ["cut the tail", "cut it all"])
def test_a_node_does_not_go_on_writing_behind_a_cut_tail(log: AuditLog, path: Path, change: str) -> None:
    fill(log)
    rewrite(path, change)
    with pytest.raises(AuditBroken):
        log.record(AuditEvent.CONNECTED)
    with pytest.raises(AuditBroken):
        AuditLog(path, clock=CLOCK)


def test_a_trail_without_its_head_does_not_verify(log: AuditLog, path: Path) -> None:
    fill(log)
    path.with_name(path.name + ".head").unlink()
    with pytest.raises(AuditBroken):
        audit.verify(path)


# ---- crashes, threads, processes ----


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_line_cut_off_by_a_crash_is_dropped_and_noted(log: AuditLog, path: Path, cut: int) -> None:
    fill(log)
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[0][:cut])
    assert audit.verify(path) == 5, "a reader leaves the unfinished line out"
    again = AuditLog(path, clock=CLOCK)
    fill(again, 1)
    again.close()
    assert audit.verify(path) == 7
    assert [line.event for line in audit.tail(path, 2)] == ["line-recovered", "input-sent"]


def test_a_killed_process_leaves_what_it_recorded(path: Path) -> None:
    for round_ in range(10):
        listen, say = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                log = AuditLog(path, clock=CLOCK)
                for n in range(20):
                    log.record(AuditEvent.INPUT_SENT, step=n)
                    os.write(say, b".")
                    if n == round_:
                        os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        os.close(say)
        with os.fdopen(listen, "rb") as told:
            recorded = len(told.read())
        os.waitpid(child, 0)
        assert recorded == round_ + 1
    assert audit.verify(path) == sum(range(1, 11))


def test_threads_and_processes_write_one_chain(log: AuditLog, path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            fill(AuditLog(path, clock=CLOCK), 50)
        finally:
            os._exit(0)
    threads = [threading.Thread(target=fill, args=(log, 25)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.waitpid(child, 0)
    assert audit.verify(path) == 150


def test_the_trail_is_for_its_owner_only(log: AuditLog, path: Path) -> None:
    fill(log)
    assert {oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == {"0o600"}
