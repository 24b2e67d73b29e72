"""What the coordinator remembers of questions survives the process."""

import contextlib
from pathlib import Path

from coordinator.question_book import QuestionBook
from protocols.ids import QuestionId
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb


def test_an_answer_outlives_the_process_that_gave_it(tmp_path: Path) -> None:
    path, question = tmp_path / "questions.sqlite", QuestionId.new()
    answer = pb.Answer(question_id=question.raw, scaled_totals=[-12], contributors=3)
    with contextlib.closing(QuestionBook(path)) as book:
        assert book.find(question) is None
        book.asked(question, researcher="ada", envelope=b"signed")
        book.attempted(question, attempt=1)
        open_still = book.find(question)
        assert open_still is not None
        assert (open_still.outcome, open_still.attempts, open_still.researcher) == (None, 1, "ada")
        book.finished(question, answer)
    with contextlib.closing(QuestionBook(path)) as book:
        found = book.find(question)
        assert found is not None
        assert (found.outcome, found.envelope) == (answer, b"signed")


def test_a_refusal_is_remembered_as_its_code(tmp_path: Path) -> None:
    question = QuestionId.new()
    with contextlib.closing(QuestionBook(tmp_path / "questions.sqlite")) as book:
        book.asked(question, researcher="ada", envelope=b"signed")
        book.finished(question, RefusalCode.TOO_FEW_SITES)
        found = book.find(question)
        assert found is not None
        assert found.outcome is RefusalCode.TOO_FEW_SITES
