"""How much is found in kinds of documents that the tagger has not learned from, and in names in no list."""

from __future__ import annotations

import pytest

from deid.evaluation import Report, score
from deid.gold_formats import GoldDocument, is_dev
from deid.notes import NoteFinder
from tests.deid.styles.documents import documents, styles
from tests.deid.styles.people import Person, listed

# spaCy, which presidio imports, imports its command line, whose typer uses names that click deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FEW = 3  # of each kind, one of them with names that are in no list


@pytest.fixture(scope="module")
def finder() -> NoteFinder:
    return NoteFinder.open()


def measured(finder: NoteFinder, chosen: list[GoldDocument]) -> Report:
    return score(chosen, finder.find([document.text for document in chosen]))


def value(share: object) -> float:
    return float(share.value)  # type: ignore[attr-defined]


def test_on_a_few_documents_of_each_kind(finder: NoteFinder) -> None:
    report = measured(finder, list(documents(per_style=FEW)))
    assert value(report.core_char_recall) >= 0.97
    assert value(report.over_redaction) <= 0.04
    assert value(report.by_group["names"]) >= 0.95


@pytest.mark.slow
def test_on_the_half_of_the_documents_that_nobody_looked_at(finder: NoteFinder) -> None:
    report = measured(finder, [one for one in documents() if not is_dev(one.id)])
    assert value(report.core_char_recall) >= 0.99
    assert value(report.over_redaction) <= 0.02
    assert value(report.token_precision) >= 0.90
    assert value(report.fully_masked_documents) >= 0.85
    assert value(report.by_group["names"]) >= 0.98
    assert value(report.by_label["NAME-NO-LIST"]) >= 0.98


def test_marks_hold_what_was_filled_in_and_the_same_seed_gives_the_same_documents() -> None:
    first, again = list(documents(per_style=2)), list(documents(per_style=2))
    assert [one.text for one in first] == [one.text for one in again]
    assert [one.spans for one in first] == [one.spans for one in again]
    for one in first:
        for span in one.spans:
            assert any(c.isalnum() for c in one.text[span.start : span.end])
    assert len({one.id for one in first}) == 2 * (len(styles()) - 1)


def test_names_that_are_said_to_be_in_no_list_are_in_none() -> None:
    import numpy as np

    rng = np.random.default_rng(4)
    for _ in range(200):
        person = Person.draw(rng, unlisted=True)
        assert not listed(person.given)
        assert not listed(person.family)
    assert listed("Maria")
