"""Free text fields lose what patterns find, and are refused where they cannot be checked."""

import pytest

from deid.errors import NotRedacted
from deid.spans import Category, Known
from deid.text import MAX_CHARACTERS, Redactor

# spaCy imports its command line, whose typer uses names that click deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor()


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("Seen by Dr. Margaret Oyelaran today", "Oyelaran"),
        ("Mr Jan de Vries is stable", "Jan"),
        ("MRN: 48-2291 transferred", "48-2291"),
        ("SSN 123-45-6789 on file", "6789"),
        ("account 884421907", "884421907"),
        ("call +1 555-123-4567 at night", "4567"),
        ("call (555) 123 4567", "4567"),
        ("mail to j.doe@clinic.local", "j.doe"),
        ("admitted 03/14/2019", "14/2019"),
        ("admitted 14th March 2019", "March 2019"),
        ("admitted March 14, 2019", "March 14"),
        ("lives at 12 Old Mill Road", "Mill"),
        ("paid with 4111 1111 1111 1111", "1111"),
        ("from 192.168.4.7", "192.168"),
        ("see https://records.example/p/77", "records"),
    ],
)
def test_identifiers_with_a_pattern_go(redactor: Redactor, text: str, identifier: str) -> None:
    assert identifier not in redactor.redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "63-year-old with chest pain, EF 35-40%, BP 140/90, Hb 12.3 g/dL, 3 weeks, NYHA III",
        "aspirin 100 mg daily, INR 2.1 to 3.0, L4/L5, SpO2 97 %",
        "platelets 210, sodium 139, HR 72",
    ],
)
def test_clinical_values_stay(redactor: Redactor, text: str) -> None:
    assert redactor.redact(text) == text


def test_overlapping_findings_leave_nothing_between(redactor: Redactor) -> None:
    assert "1234" not in redactor.redact("MRN 123456789012345, DOB: 01-02-1934, 1234567")


def test_a_long_text_fails_closed(redactor: Redactor) -> None:
    with pytest.raises(NotRedacted):
        redactor.redact("a" * (MAX_CHARACTERS + 1))


def test_a_failing_analysis_fails_closed_and_keeps_the_text_to_itself(redactor: Redactor) -> None:
    with pytest.raises(NotRedacted) as caught:
        redactor.redact(b"Mr Smith")  # type: ignore[arg-type] # stands for a fault inside the analyzer
    assert "Smith" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_names_without_a_title_go_too(redactor: Redactor) -> None:
    assert "Katarzyna" not in redactor.redact("Katarzyna Nowak walked today")


def test_a_note_loses_what_is_known_of_its_patient(redactor: Redactor) -> None:
    note = "seen w/ zebulon, k 4.1, call if worse"
    rest = redactor.redact_note(note, [Known(Category.NAME, "Zebulon Quix")])
    assert "zebulon" not in rest
    assert rest.endswith("4.1, call if worse")
