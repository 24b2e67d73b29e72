"""What the figures of an evaluation mean, on texts small enough to count by hand."""

import itertools

import numpy as np
import pytest

from deid.evaluation import score, wilson_interval
from deid.gold_formats import GoldDocument, GoldSpan, document_of
from deid.spans import Category, Span

TEXT = "Ann Lee saw Dr Foley on 3 May."  # 30 characters
NAME = GoldSpan(0, 7, Category.NAME, "NAME")
DATE = GoldSpan(24, 29, Category.DATE, "DATE")


def document(
    *marks: GoldSpan, text: str = TEXT, neutral: tuple[tuple[int, int], ...] = (), name: str = "d1"
) -> GoldDocument:
    return GoldDocument(name, text, marks, neutral)


def found(*places: tuple[int, int], kind: Category = Category.NAME) -> list[Span]:
    return [Span(start, end, kind) for start, end in places]


def test_all_found_and_nothing_else_is_one_everywhere_and_zero_over_redaction() -> None:
    report = score([document(NAME, DATE)], [[*found((0, 7)), *found((24, 29), kind=Category.DATE)]])
    shares = (
        report.char_recall, report.core_char_recall, report.char_precision, report.token_recall,
        report.token_precision, report.entity_recall, report.entity_precision, report.fully_masked_documents,
    )  # fmt: skip
    assert [share.value for share in shares] == [1.0] * 8
    assert report.over_redaction.value == 0.0
    assert not report.leaks
    assert not report.excess


def test_nothing_found_leaks_every_mark_by_document_and_place() -> None:
    report = score([document(NAME, DATE)], [[]])
    assert report.char_recall.value == 0.0
    assert report.char_precision.value is None
    assert report.fully_masked_documents.value == 0.0
    assert [(leak.document, leak.start, leak.label, leak.whole) for leak in report.leaks] == [
        ("d1", 0, "NAME", True),
        ("d1", 24, "DATE", True),
    ]


def test_removing_everything_finds_everything_and_shows_as_over_redaction() -> None:
    report = score([document(NAME, DATE)], [found((0, 30))])
    assert report.char_recall.value == 1.0
    assert report.over_redaction.value == 1.0
    assert report.token_precision.value == 4 / 8  # Ann Lee 3 May of eight words


def test_half_a_name_is_a_leak_of_the_document_and_counts_by_its_characters() -> None:
    report = score([document(NAME)], [found((0, 3))])
    assert report.char_recall.part == 3
    assert report.char_recall.whole == 7
    assert report.entity_recall.value == 0.0
    assert report.token_recall.value == 0.5
    assert report.leaks[0].left == ((3, 7),)
    assert not report.leaks[0].whole


def test_a_gap_without_letters_or_digits_between_two_findings_is_no_leak_of_the_entity() -> None:
    report = score([document(NAME)], [found((0, 3), (4, 7))])
    assert report.char_recall.part == 6  # the space is not counted as removed either
    assert report.entity_recall.value == 1.0
    assert report.fully_masked_documents.value == 1.0


def test_neutral_spans_are_scored_neither_as_identity_nor_as_over_redaction() -> None:
    plain = document(NAME, neutral=((15, 20),))
    report = score([plain], [found((0, 7), (15, 20))])
    assert report.over_redaction.value == 0.0
    assert report.over_redaction.whole == 30 - 7 - 5
    assert report.token_precision.value == 1.0
    assert report.entity_precision.whole == 1
    assert report.neutral_touched.part == 1
    assert not report.excess
    assert score([document(NAME)], [found((0, 7), (15, 20))]).over_redaction.part == 5


def test_a_finding_that_takes_words_beside_a_mark_is_listed_with_the_piece_it_took() -> None:
    report = score([document(NAME)], [found((0, 11))])
    assert [(piece.start, piece.end) for piece in report.excess] == [(7, 11)]
    assert report.over_redaction.part == 4


def test_precision_by_category_goes_by_what_was_found_and_recall_by_what_was_marked() -> None:
    report = score([document(NAME, DATE)], [found((0, 7), (24, 29), (12, 14))])
    name, date = report.by_category[Category.NAME], report.by_category[Category.DATE]
    assert name.entity_recall.value == 1.0
    assert name.entity_precision.value == 2 / 3
    assert date.entity_recall.value == 1.0
    assert date.right_kind.value == 0.0
    assert date.entity_precision.value is None
    assert report.by_group["dates"].value == 1.0
    assert report.by_group["ids"].value is None


def test_a_document_without_identity_is_not_counted_as_masked_but_as_touched() -> None:
    report = score([document(), document(NAME, name="d2")], [found((15, 20)), found((0, 7))])
    assert report.fully_masked_documents.whole == 1
    assert report.documents_without_identity_touched.value == 1.0


def test_the_interval_resamples_documents_and_so_is_wider_where_leaks_come_together() -> None:
    many = [document(NAME, DATE, name=str(n)) for n in range(200)]
    both = [*found((0, 7)), *found((24, 29))]
    together = score(many, [[] if n < 20 else both for n in range(200)])
    spread = score(many, [both[n % 2 :][:1] if n < 40 else both for n in range(200)])
    assert together.entity_recall.value == spread.entity_recall.value == 0.9
    widths = []
    for report in (together, spread):
        share = report.entity_recall
        assert share.low is not None
        assert share.high is not None
        assert share.low < 0.9 < share.high
        widths.append(share.high - share.low)
    assert widths[0] > 1.2 * widths[1]


@pytest.mark.slow
def test_the_interval_holds_the_truth_in_nineteen_of_twenty_draws() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        documents = [document(NAME, name=str(n)) for n in range(150)]
        report = score(documents, [found((0, 7)) if rng.random() < 0.8 else [] for _ in documents], rng=rng)
        low, high = report.char_recall.low, report.char_recall.high
        assert low is not None
        assert high is not None
        held += low <= 0.8 <= high
    assert 178 <= held <= 199  # 190 expected; a 90 % interval would hold 180, a 99.9 % one 200


def test_the_same_input_gives_the_same_report() -> None:
    documents = [document(NAME, DATE, name=str(n)) for n in range(30)]
    findings = [found((0, 7)) if n % 3 else [] for n in range(30)]
    assert score(documents, findings) == score(documents, findings)


def test_against_a_count_by_hand_over_all_small_cases() -> None:
    text = "ab c"
    pieces = list(itertools.combinations(range(5), 2))
    for mark, finding in itertools.product(pieces, pieces):
        report = score(
            [document(GoldSpan(*mark, Category.ID, "ID"), text=text)], [found(finding, kind=Category.ID)]
        )
        gold, gone = set(range(*mark)), set(range(*finding))
        letters = {place for place in gold if text[place] != " "}
        assert report.char_recall.part == len(gold & gone)
        assert report.over_redaction.part == len(gone - gold)
        masked = letters <= gone if letters else bool(gold & gone)
        assert report.fully_masked_documents.part == masked


def test_findings_that_do_not_fit_the_texts_are_an_error_without_the_text() -> None:
    with pytest.raises(ValueError, match="document d1") as error:
        score([document()], [found((0, 31))])
    assert "Ann" not in str(error.value)
    with pytest.raises(ValueError, match="1 documents"):
        score([document()], [])


def test_the_report_as_json_has_a_number_for_each_promised_figure() -> None:
    plain = score([document(NAME, DATE)], [found((0, 7))]).as_json()
    for name in (
        "char_recall",
        "over_redaction",
        "fully_masked_documents",
        "token_precision",
        "entity_recall",
    ):
        assert isinstance(plain[name], float)
        assert len(plain["intervals"][name]) == 2
    assert plain["by_category"]["name"]["entity_recall"]["value"] == 1.0
    assert plain["by_category"]["date"]["entity_recall"]["value"] == 0.0
    assert "Ann" not in str(plain)


def test_an_empty_set_has_no_figures_and_no_error() -> None:
    assert score([], []).char_recall.value is None


def test_a_report_of_an_unknown_label_scores_it_and_names_it() -> None:
    strange = document_of("d1", TEXT, [(0, 7, "SHIBBOLETH")], [])
    report = score([strange], [[]])
    assert report.unknown_labels == ("SHIBBOLETH",)
    assert report.by_category[Category.ID].entity_recall.value == 0.0


def test_wilson_against_published_ends() -> None:
    low, high = wilson_interval(81, 263)  # Newcombe 1998, table I, method 3: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
