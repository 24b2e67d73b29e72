"""What is found and what stays where notes are dense: scores beside days, signs after people, short forms."""

from __future__ import annotations

import numpy as np
import pytest

from deid.notes import NoteFinder
from sim.notes.documents import misread, misspelled, notes
from tests.deid.gone import gone

# spaCy, which presidio imports, imports its command line, whose typer uses names that click deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def finder() -> NoteFinder:
    return NoteFinder.open()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("CTA 3/17 no PE. Will repeat.", "3/17"),  # no strength and no pain is out of seventeen
        ("Drain out 10/28, afebrile since.", "10/28"),
        ("[21:40] Zsofka: bed 4 needs a bolus\n[21:42] Tunde: going\n[21:43] Zsofka: thanks", "Zsofka"),
        ("0900 colace 100 mg ....... WQT\n2100 senna 2 tabs ....... WQT", "WQT"),
        ("Given by HBR = Hanna B. Rasmusson RN", "HBR"),
        ("Bakshi, R 61M stable on 4 L.", "R 61"),
        ("991;2020-03-04;02:10;jrobinson;fio2 .4;", "jrobinson"),
        ("Lives with girlfriend Trinity in a flat.", "Trinity"),
        ("Ask for Ulla x3306 at the desk.", "x3306"),
        ("PELTOLA, AINO 4471209 seen by us", "AINO"),
    ],
)
def test_days_speakers_initials_and_logins_are_found(finder: NoteFinder, text: str, left: str) -> None:
    assert left not in gone(finder, text)


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("Apgars 8/9. MMSE 24/30, Berg 21/28. Strength 4/5 in both legs.", "24/30, Berg 21/28"),
        ("7/18 nodes positive, 3/13 cores.", "7/18 nodes"),
        ("Gartland III supracondylar fracture, Hawkins III talus.", "Hawkins III"),
        ("Dr. Foley saw him. The Foley to gravity, urine clear.", "Foley to gravity"),
        ("Finkelstein neg, Durkan neg, Allen equivocal.", "Durkan neg"),
        ("Seen by Anneli Ruokonen RPSGT in the lab.", "RPSGT"),
        ("He saw Pekka Hirvela. Pharmacy will call.", "Pharmacy"),
        ("ICD: Viva XT DR MRI, battery good.", "MRI"),
        ("closed on the last Monday before Labor Day, as always", "Monday before Labor Day"),
        ("pt of dr karvonen, sats 94, pls recheck tmrw", "pls recheck tmrw"),
        ("Pt Dix fell. Dix Hallpike neg to the left.", "Dix Hallpike"),
        ("HEART CENTER outpt clinic note, chest pain.", "outpt clinic"),
    ],
)
def test_scores_signs_and_short_forms_stay(finder: NoteFinder, text: str, stays: str) -> None:
    assert stays in gone(finder, text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Seen with Dr. Hawkins, who agrees.", "Hawkins"),
        ("His wife Joan Foley is here. Mrs. Foley will drive.", "Foley"),
        ("Message from John Babcock III about the bill.", "Babcock"),
        ("Mr. Durkan is negative for everything.", "Durkan"),
        ("will ask dr til about this, wife pam is here", "pam"),
    ],
)
def test_people_called_like_a_sign_or_a_short_form_are_found(
    finder: NoteFinder, text: str, left: str
) -> None:
    assert left not in gone(finder, text)


def test_a_scanner_changes_letters_and_moves_none() -> None:
    rng = np.random.default_rng(3)
    text = "Sodium 150, lisinopril 10 mg. Seen by Oskar Wall."
    for _ in range(20):
        read = misread(text, rng, share=0.5)
        assert len(read) == len(text)
        assert read != text
        assert [c.isspace() for c in read] == [c.isspace() for c in text]


def test_a_misspelled_word_is_another_word_and_a_short_one_stays() -> None:
    rng = np.random.default_rng(5)
    assert misspelled("hip", rng) == "hip"
    changed = [misspelled("breathing", rng) for _ in range(200)]
    assert sum(word != "breathing" for word in changed) > 150  # a letter struck wrongly may be the same again
    assert all(abs(len(word) - len("breathing")) <= 1 for word in changed)


def test_what_is_marked_in_generated_notes_was_filled_in() -> None:
    for note in notes(8, 300):
        assert all(0 <= start < end <= len(note.text) for start, end, _ in note.spans)
        assert all(a[1] <= b[0] for a, b in zip(note.spans, note.spans[1:], strict=False))
