"""What the coordinator remembers of questions survives the process, and files of the version before."""

import base64
import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.budget_mirror import budget
from coordinator.question_book import QuestionBook
from privacy import accountant, release
from privacy.accountant import GaussianEvent
from protocols.cohort import Cohort
from protocols.ids import QuestionId
from protocols.question import Question
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
HERE, THERE = b"h" * 32, b"t" * 32


def question(*, project: str = "demo", epsilon: float = 1.0) -> Question:
    cohort = Cohort.parse({"index": {"kind": "condition", "concepts": [317576]}})
    return Question.ask(
        cohort, project=project, epsilon=epsilon, delta=1e-6, max_sites_per_patient=2, now=NOW
    )


def asked(book: QuestionBook, one: Question, *, envelope: bytes = b"signed") -> Question:
    book.asked(one, researcher="ada", envelope=envelope, meaning=one.meaning(), price=release.price(one))
    return one


def answer_to(one: Question, total: int = -12) -> pb.Answer:
    return pb.Answer(question_id=one.question_id.raw, scaled_totals=[total, 5], contributors=3)


def test_an_answer_outlives_the_process_that_gave_it(tmp_path: Path) -> None:
    path = tmp_path / "questions.sqlite"
    with contextlib.closing(QuestionBook(path)) as book:
        one = question()
        assert book.find(one.question_id) is None
        asked(book, one)
        book.attempted(one.question_id, attempt=1)
        open_still = book.find(one.question_id)
        assert open_still is not None
        assert (open_still.outcome, open_still.attempts, open_still.researcher) == (None, 1, "ada")
        book.finished(one.question_id, answer_to(one), setting=HERE)
    with contextlib.closing(QuestionBook(path)) as book:
        found = book.find(one.question_id)
        assert found is not None
        assert found.outcome == answer_to(one)
        assert found.is_this("ada", b"signed")
        assert not found.is_this("ada", b"signed otherwise")
        assert not found.is_this("eve", b"signed")
        assert book.stored(one.meaning(), setting=HERE) == answer_to(one)
        assert book.stored(one.meaning(), setting=THERE) is None
        assert book.stored(question(epsilon=2.0).meaning(), setting=HERE) is None


def test_a_refusal_is_remembered_as_its_code_and_is_no_stored_answer(tmp_path: Path) -> None:
    with contextlib.closing(QuestionBook(tmp_path / "questions.sqlite")) as book:
        one = asked(book, question())
        book.finished(one.question_id, RefusalCode.TOO_FEW_SITES, setting=HERE)
        found = book.find(one.question_id)
        assert found is not None
        assert found.outcome is RefusalCode.TOO_FEW_SITES
        assert book.stored(one.meaning(), setting=HERE) is None


def test_a_release_that_is_nobody_elses_and_a_repeat_are_not_stored_for_others(tmp_path: Path) -> None:
    with contextlib.closing(QuestionBook(tmp_path / "questions.sqlite")) as book:
        one, two = asked(book, question()), asked(book, question(), envelope=b"x" * 5_000_000)
        book.finished(one.question_id, answer_to(one))  # in no setting
        book.repeated(two.question_id, answer_to(two))
        assert book.stored(one.meaning(), setting=HERE) is None
        found = book.find(two.question_id)
        assert found is not None
        assert found.is_this("ada", b"x" * 5_000_000)
    assert (tmp_path / "questions.sqlite").stat().st_size < 10_000_000


def test_the_mirror_counts_attempts_repeats_and_training_by_project(tmp_path: Path) -> None:
    with contextlib.closing(QuestionBook(tmp_path / "questions.sqlite")) as book:
        one, twice, again, refused = (asked(book, question()) for _ in range(4))
        elsewhere = asked(book, question(project="other"))
        for each, attempts in ((one, 1), (twice, 2), (refused, 1), (elsewhere, 1)):
            book.attempted(each.question_id, attempt=attempts)
        for each in (one, twice, elsewhere):
            book.finished(each.question_id, answer_to(each))
        book.finished(refused.question_id, RefusalCode.TOO_MANY_DROPOUTS)  # its inputs may have left
        book.repeated(again.question_id, answer_to(again))
        for _ in range(5):
            book.trained("demo", GaussianEvent(20.0))
        reply = budget("demo", book.seen("demo"), delta=1e-6)
    lines = {line.kind: (line.releases, line.cached) for line in reply.lines}
    assert lines == {"count": (4, 1), "training": (5, 0)}
    events = [release.price(one).times(4), GaussianEvent(20.0, 5)]
    assert reply.epsilon == pytest.approx(accountant.epsilon(events, delta=1e-6), rel=1e-12)
    assert (reply.releases, reply.cached) == (9, 1)


def version_1(path: Path, envelopes: dict[bytes, tuple[bytes, int, bytes | None]]) -> None:
    """Make a file as version 1 left it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TABLE questions (question_id BLOB PRIMARY KEY, researcher TEXT NOT NULL,"
            " envelope BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, answer BLOB, refusal TEXT)"
        )
        for raw, (envelope, attempts, answer) in envelopes.items():
            db.execute(
                "INSERT INTO questions VALUES (?, 'ada', ?, ?, ?, NULL)", (raw, envelope, attempts, answer)
            )
        db.commit()


def test_a_file_of_version_1_keeps_its_answers_and_what_they_cost(tmp_path: Path) -> None:
    path, one, torn = tmp_path / "questions.sqlite", question(), question()
    payload = {"kind": "count", "version": 1, "project": "demo", "epsilon": 1.0, "delta": 1e-6}
    signed = json.dumps({"payload": base64.b64encode(json.dumps(payload).encode()).decode()}).encode()
    old_answer = bytes([0x0A, 16, *one.question_id.raw, 0x10, 23])  # scaled_total: -12 was not yet a list
    version_1(
        path, {one.question_id.raw: (signed, 2, old_answer), torn.question_id.raw: (b"not one", 1, None)}
    )
    for _ in range(2):  # bringing it up to date twice changes nothing
        with contextlib.closing(QuestionBook(path)) as book:
            found = book.find(one.question_id)
            assert found is not None
            assert found.is_this("ada", signed)
            assert isinstance(found.outcome, pb.Answer)
            assert list(found.outcome.scaled_totals) == [-12]
            assert book.stored(one.meaning(), setting=HERE) is None
            unread = book.find(torn.question_id)
            assert unread is not None
            assert unread.outcome is None
            (seen,) = book.seen("demo")
            assert (seen.kind, seen.cached) == ("count", 0)
            assert seen.event == release.price(one).times(2)
    with contextlib.closing(QuestionBook(path)) as book:
        new = asked(book, question())
        book.finished(new.question_id, answer_to(new), setting=HERE)
        assert book.stored(new.meaning(), setting=HERE) == answer_to(new)


def test_ids_of_questions_are_found_by_their_bytes_alone(tmp_path: Path) -> None:
    with contextlib.closing(QuestionBook(tmp_path / "questions.sqlite")) as book:
        asked(book, question())
        assert book.find(QuestionId.new()) is None
