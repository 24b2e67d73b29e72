"""The finder of identity in notes: what it promises whatever the note is."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deid.errors import NotRedacted
from deid.note_processes import chunks, find_parallel
from deid.notes import MAX_CHARACTERS, NoteFinder, NotePolicy
from deid.spans import Category, Known

# spaCy, which presidio imports, imports its command line, whose typer uses names that click deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NOTE = (
    "Pt name: NAKAMURA, ELIZABETH R.   MRN: 00-33-417\n"
    "Mrs. Nakamura is a 93-year-old woman from Salem with Parkinson disease, seen on 3/14 by Dr. Oyelaran.\n"
    "Elizabeth's daughter Kaori (617-555-0142) agrees. Continue Sinemet 25/100 mg TID. BP 132/84, Cr 1.1."
)


@pytest.fixture(scope="module")
def finder() -> NoteFinder:
    return NoteFinder.open()


def left(text: str, finder: NoteFinder, **known: object) -> str:
    (spans,) = finder.find([text], **known)  # type: ignore[arg-type]
    for span in reversed(spans):
        text = text[: span.start] + "#" + text[span.end :]
    return text


def test_a_note_loses_its_identity_and_keeps_its_medicine(finder: NoteFinder) -> None:
    rest = left(NOTE, finder)
    for gone in (
        "NAKAMURA",
        "Nakamura",
        "Elizabeth",
        "Kaori",
        "Oyelaran",
        "00-33-417",
        "93",
        "555",
        "3/14",
        "Salem",
    ):
        assert gone not in rest, gone
    for stays in ("Parkinson disease", "Sinemet 25/100 mg TID", "BP 132/84", "Cr 1.1", "daughter"):
        assert stays in rest, stays


def test_the_same_note_gives_the_same_spans_alone_or_among_others(finder: NoteFinder) -> None:
    (alone,) = finder.find([NOTE])
    among = finder.find(["Dr. Roe called.", NOTE, "", NOTE + " " + NOTE])
    assert among[1] == alone
    assert among[2] == []
    assert NoteFinder.open().find([NOTE]) == [alone]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(
        alphabet=st.one_of(st.characters(), st.sampled_from(" \n.,:;/-0123456789ABab@()²é患")), max_size=300
    )
)
def test_any_text_gives_spans_inside_it_in_order(finder: NoteFinder, text: str) -> None:
    (spans,) = finder.find([text])
    ends = [0]
    for span in spans:
        assert ends[-1] <= span.start < span.end <= len(text)
        ends.append(span.end)


@settings(max_examples=60, deadline=None)
@given(
    value=st.from_regex(r"[A-Z][a-zéö]{2,9}( [A-Z]\.)? [A-Z][a-z'-]{3,12}", fullmatch=True),
    before=st.sampled_from(["told ", "(", "wife of ", "\n", "re: "]),
    after=st.sampled_from([".", " came", ") was", "\n", "'s pain"]),
    form=st.sampled_from([str, str.upper, str.lower]),
)
def test_what_is_known_never_survives(
    finder: NoteFinder, value: str, before: str, after: str, form: object
) -> None:
    written = form(value)  # type: ignore[operator]
    text = f"Seen today, {before}{written}{after} and discharged."
    rest = left(text, finder, known=[[Known(Category.NAME, value)]])
    assert written not in rest
    parts = [part for part in re.findall(r"[^\W\d_]{4,}", written)]
    assert not [
        part for part in parts if re.search(rf"\b{part}\b", rest) and part not in text.replace(written, "")
    ]


@pytest.mark.parametrize(
    ("known", "text", "gone"),
    [
        (Known(Category.MRN, "QX77"), "chart QX77 pulled", "QX77"),
        (
            Known(Category.PROFESSION, "falconer"),
            "he is a Falconer",
            "Falconer",
        ),  # not in the policy, but known
        (Known(Category.DATE, "2014-03-07"), "dc'd on 7/3/14 am", "7/3/14"),
        (Known(Category.EMAIL, "zq@x.example"), "ZQ@X.EXAMPLE replied", "ZQ@X"),
    ],
)
def test_each_kind_of_known_identifier_goes(finder: NoteFinder, known: Known, text: str, gone: str) -> None:
    assert gone not in left(text, finder, known=[[known]])


def test_the_policy_says_which_kinds_go(finder: NoteFinder) -> None:
    only_dates = NoteFinder.open(policy=NotePolicy(frozenset((Category.DATE,))))
    (spans,) = only_dates.find(["Mr. Okonkwo came on 03/14/2019."])
    assert [span.category for span in spans] == [Category.DATE]
    text = "Occupation: firefighter at the station."
    (kept,) = finder.find([text])
    assert not [span for span in kept if span.category is Category.PROFESSION]
    every = NoteFinder.open(policy=NotePolicy(frozenset(Category)))
    assert Category.PROFESSION in {span.category for span in every.find([text])[0]}


def test_a_note_that_cannot_be_read_fails_closed_and_keeps_its_text_to_itself(finder: NoteFinder) -> None:
    with pytest.raises(NotRedacted) as caught:
        finder.find([b"Mr Smith"])  # type: ignore[list-item] # stands for a fault inside the analysis
    assert "Smith" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(NotRedacted):
        finder.find(["a" * (MAX_CHARACTERS + 1)])


def test_known_identifiers_come_one_list_for_each_text(finder: NoteFinder) -> None:
    with pytest.raises(ValueError, match="2 texts"):
        finder.find(["a", "b"], known=[[]])


def test_a_language_without_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="tables"):
        NoteFinder.open("xx")


def test_processes_find_what_one_finder_finds(finder: NoteFinder) -> None:
    texts = [NOTE, "Mr. Okonkwo came on 03/14/2019.", "No complaints."] * 2
    known = [[Known(Category.NAME, "Complaints")] if "No" in text else [] for text in texts]
    assert find_parallel(texts, known=known, processes=2) == finder.find(texts, known=known)


def test_texts_are_parted_among_processes_whole_and_in_order() -> None:
    lengths = [10, 0, 90_000, 5, 5, 39_000, 2_000, 41_000, 1]
    parts = chunks(lengths, 2)
    assert [place for part in parts for place in range(len(lengths))[part]] == list(range(len(lengths)))
    assert len(chunks([1_000] * 400, 2)) >= 10  # the last one waits for little
    assert max(len(range(400)[part]) for part in chunks([1_000] * 400, 2)) <= 40
    assert chunks([], 2) == []


@pytest.mark.slow
def test_tokens_forgotten_between_passes_change_nothing(finder: NoteFinder) -> None:
    """Once what was known of tokens was forgotten amid a pass, and texts read before it got others' rows."""
    expected = finder.find([NOTE])
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [a + b + c + d for a in letters for b in letters for c in letters for d in "aeiou"]
    for at in range(0, 64_000, 4_000):
        pass_of = [" ".join(words[at : at + 2_000]), NOTE, " ".join(words[at + 2_000 : at + 4_000])]
        assert finder.find(pass_of)[1] == expected[0]
