"""Each recognizer by itself: what it finds, and what looks like it and is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from deid.lexicon.language import language
from deid.recognizers.consistency import repeated
from deid.recognizers.dates import dates, great_ages, is_great
from deid.recognizers.keep import without_terms
from deid.recognizers.known import known_spans
from deid.recognizers.labels import labelled_numbers
from deid.recognizers.names import named_people
from deid.recognizers.numbers import iban_holds, luhn_holds, shaped_numbers, vin_holds
from deid.recognizers.page import Page
from deid.recognizers.places import addresses
from deid.spans import Category, Known, Span
from deid.tagger import layout

# spaCy, which presidio imports, imports its command line, whose typer uses names that click deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ENGLISH = language("en")


def page(text: str) -> Page:
    _, starts, ends, _ = layout(text)
    return Page(text, ENGLISH, starts, ends)


def found(find: Callable[[Page], Iterator[Span]], text: str) -> list[tuple[str, str]]:
    return sorted({(span.category.value, text[span.start : span.end]) for span in find(page(text))})


@pytest.mark.parametrize(
    ("text", "category", "value"),
    [
        ("write to j.o'neil+2@ward-3.example.org.", "email", "neil+2@ward-3.example.org"),
        ("see https://records.example.org/p?id=7, please", "url", "https://records.example.org/p?id=7"),
        ("page www.hospital.example today", "url", "www.hospital.example"),
        ("from 192.0.2.17 at noon", "ip", "192.0.2.17"),
        ("host 2001:db8:4539::9e9e said", "ip", "2001:db8:4539::9e9e"),
        ("call (617) 555-0142 now", "phone", "(617) 555-0142"),
        ("call 617-555-0142 ext 33", "phone", "617-555-0142 ext 33"),
        ("call 617.555.0142.", "phone", "617.555.0142"),
        ("call +44 20 7946 0958", "phone", "+44 20 7946 0958"),
        ("number 900-11-2222 given", "ssn", "900-11-2222"),
        ("ends ***-**-1234", "ssn", "***-**-1234"),
        ("paid by 4111 1111 1111 1111", "account", "4111 1111 1111 1111"),
        ("to GB82 WEST 1234 5698 7654 32", "account", "GB82 WEST 1234 5698 7654 32"),
        ("a car 1M8GDM9AXKP042788 came", "vehicle", "1M8GDM9AXKP042788"),
        ("at 2014-03-12T08:00:00Z", "date", "2014-03-12T08:00:00Z"),
    ],
)
def test_a_shape_says_what_it_is(text: str, category: str, value: str) -> None:
    assert (category, value) in found(shaped_numbers, text)


@pytest.mark.parametrize(
    "text",
    [
        "BP 120/80, HR 72, 98.6 F, WBC 7.4, 1.5 x 2.0 x 3.25 cm",
        "version 1.2.3 of 10.5.2020.1234 steps",
        "time 10:30:15 to 11:00",
        "card 4111 1111 1111 1112",  # the last digit is wrong
        "1M8GDM9AXKP042789",  # the check digit is wrong
        "4.5-5.5-6.5 mmol/L",
    ],
)
def test_values_have_no_identifying_shape(text: str) -> None:
    assert not [item for item in found(shaped_numbers, text) if item[0] != "date"]


def test_check_digits_refuse_each_single_wrong_digit() -> None:
    for holds, number in (
        (luhn_holds, "4539578763621486"),
        (iban_holds, "DE89370400440532013000"),
        (vin_holds, "1M8GDM9AXKP042788"),
    ):
        assert holds(number)
        wrong = [
            number[:at] + str((int(c) + 1) % 10) + number[at + 1 :]
            for at, c in enumerate(number)
            if c.isdigit()
        ]
        assert not any(holds(each) for each in wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seen 03/14/2019 and", "03/14/2019"),
        ("seen 14.3.19 and", "14.3.19"),
        ("seen 2019-3-4.", "2019-3-4"),
        ("on March 14th, 2019 she", "March 14th, 2019"),
        ("on 14 Mar 2019 she", "14 Mar 2019"),
        ("on the 3rd of May she", "the 3rd of May"),
        ("D: 09-SEP-2020", "09-SEP-2020"),
        ("12MAR2014 note", "12MAR2014"),
        ("since January 2014", "January 2014"),
        ("Monday, April 24, 2000", "Monday, April 24, 2000"),
        ("before Thanksgiving dinner", "Thanksgiving"),
    ],
)
def test_dates_are_found_as_they_are_written(text: str, value: str) -> None:
    assert ("date", value) in found(dates, text)


@pytest.mark.parametrize(
    "text",
    [
        "POD 3, HD 12, pain 4/10, strength 5/5",
        "BP 120/80/70 mmHg",
        "may 2 tablets be taken",
        "L4-5 and C5/C6, T12-L1",
        "ratio 1.5/2.5, dose 2-3 mg",
        "112-day course",
        "Christmas disease",
    ],
)
def test_scores_and_doses_are_no_dates(text: str) -> None:
    assert found(dates, text) == []


@pytest.mark.parametrize(
    "text",
    ["a 94-year-old man", "aged 101", "she turned 90", "97 y/o", "Age: 104", "age at this review is 93"],
)
def test_ages_of_ninety_and_above_are_found(text: str) -> None:
    assert [kind for kind, _ in found(great_ages, text)] == ["age"]


@pytest.mark.parametrize(
    "text", ["an 89-year-old", "SpO2 94 %", "95 mg", "aged 45", "age below 90", "103-day interval", "HR 98"]
)
def test_lesser_ages_and_values_stay(text: str) -> None:
    assert found(great_ages, text) == []


def test_an_age_in_words_is_understood() -> None:
    assert is_great("one hundred and two", ENGLISH)
    assert not is_great("eighty-nine", ENGLISH)


@pytest.mark.parametrize(
    ("text", "category", "value"),
    [
        ("MRN: 00-12-345", "mrn", "00-12-345"),
        ("MRN 8841207 seen", "mrn", "8841207"),
        ("Medical Record Number is A-2213907.", "mrn", "A-2213907"),
        ("Acct # 44-1021", "account", "44-1021"),
        ("Member ID: XQZ100233491", "plan_id", "XQZ100233491"),
        ("Serial number RPF224816H", "device", "RPF224816H"),
        ("NPI: 1234567893", "license", "1234567893"),
        ("Accession: RAD-19-0088213", "id", "RAD-19-0088213"),
        ("License plate 8ABC123", "vehicle", "8ABC123"),
        ("pager 4417", "phone", "4417"),
        ("Fingerprint ID 99-182-7", "biometric", "99-182-7"),
        ("SSN 219 09 9999", "ssn", "219 09 9999"),
    ],
)
def test_a_label_says_what_a_number_is(text: str, category: str, value: str) -> None:
    assert (category, value) in found(labelled_numbers, text)


@pytest.mark.parametrize(
    "text",
    [
        "platelets 218",
        "ID consult 2 days",
        "order 500 mg",
        "MRN pending",
        "chart reviewed 10:30",
        "fin 5%",
        "visit 03/14/2019",
    ],
)
def test_a_word_before_a_value_is_no_label(text: str) -> None:
    assert found(labelled_numbers, text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seen by Dr. Margaret Oyelaran today", "Margaret Oyelaran"),
        ("Mr. de la Cruz-O'Neil is", "Cruz-O'Neil"),
        ("Patient: DOE, JANE A.", "DOE, JANE A"),
        ("Attending: J. Featherstone", "J. Featherstone"),
        ("Jane Q. Roe, MD", "Jane Q. Roe"),
        ("Electronically signed by: Per Ångström", "Per Ångström"),
    ],
)
def test_a_title_a_label_or_a_degree_names_a_person(text: str, value: str) -> None:
    assert any(value in name for _, name in found(named_people, text))


@pytest.mark.parametrize(
    "text",
    ["Patient: denies pain", "Name: unknown", "Attending: pending", "Nurse: see above", "Contact: None"],
)
def test_a_label_without_a_name_names_no_one(text: str) -> None:
    assert found(named_people, text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lives at 12 Old Mill Road, Apt 4, Salem, MA 01970.", "12 Old Mill Road, Apt 4, Salem, MA 01970"),
        ("P.O. Box 4417", "P.O. Box 4417"),
        ("from Salem, MA 01970", "Salem, MA 01970"),
        ("at Via Salice 12", "Via Salice 12"),
        ("PSC 1437, Box 3833\nAPO AA 66791", "PSC 1437, Box 3833\nAPO AA 66791"),
        ("ZIP: 48750", "48750"),
        ("Hauptstraße 7", "Hauptstraße 7"),
    ],
)
def test_addresses_are_found(text: str, value: str) -> None:
    assert any(value in place for _, place in found(addresses, text))


@pytest.mark.parametrize(
    "text",
    ["5 Tablets Daily", "in Room 4", "12 Lead ECG", "3 Way Catheter", "stage II Disease", "grade 3 Murmur"],
)
def test_numbers_before_words_are_no_addresses(text: str) -> None:
    assert found(addresses, text) == []


def spans_of(text: str, value: str, category: Category, by: str = "tagger", score: float = 0.8) -> Span:
    return Span(text.index(value), text.index(value) + len(value), category, score, by)


@pytest.mark.parametrize(
    ("text", "value", "category"),
    [
        ("no sign of Parkinson disease", "Parkinson", Category.NAME),
        ("Foley catheter removed", "Foley", Category.NAME),
        ("started on Lipitor daily", "Lipitor", Category.NAME),
        ("Wilson's disease excluded", "Wilson", Category.NAME),
        ("Murphy sign negative", "Murphy", Category.NAME),
        ("see PMID 27895717 for", "27895717", Category.ID),
        ("NDC 51749-443-22 lot", "51749-443-22", Category.ID),
        ("a review published in 2005 says", "2005", Category.DATE),
        ("listed as NCT01234567 now", "NCT01234567", Category.ID),
        ("given 95 mg at", "95", Category.AGE if False else Category.ID),
    ],
)
def test_terms_and_public_numbers_are_let_go(text: str, value: str, category: Category) -> None:
    assert without_terms(page(text), [spans_of(text, value, category)]) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Dr. Parkinson saw her", "Parkinson"),
        ("Mr. Wilson is stable", "Wilson"),
        ("signed by: Foley", "Foley"),
    ],
)
def test_people_called_like_a_disease_are_kept(text: str, value: str) -> None:
    span = spans_of(text, value, Category.NAME)
    assert without_terms(page(text), [span]) == [span]


def test_what_is_known_is_never_let_go() -> None:
    span = spans_of("Parkinson disease", "Parkinson", Category.NAME, by="known")
    assert without_terms(page("Parkinson disease"), [span]) == [span]


def test_a_name_found_once_is_found_again_but_not_as_an_english_word() -> None:
    text = "Ms. Rose Quintanilla came. We told Quintanilla. QUINTANILLA left. The rose is red."
    again = [
        text[s.start : s.end]
        for s in repeated(page(text), [spans_of(text, "Rose Quintanilla", Category.NAME)])
    ]
    assert again == ["Quintanilla", "QUINTANILLA"]


@pytest.mark.parametrize(
    ("known", "text", "value"),
    [
        (Known(Category.NAME, "Zoë O'Hara-Lindqvist"), "told zoe lindqvist so", "zoe"),
        (Known(Category.NAME, "Lindqvist, Zoë"), "ZOE came", "ZOE"),
        (Known(Category.DATE, "1931-11-02"), "born 11/2/1931 in", "11/2/1931"),
        (Known(Category.DATE, "1931-11-02"), "born 2. November 1931", "2. November 1931"),
        (Known(Category.DATE, "1931-11-02"), "born Nov 2nd, '31", "Nov 2nd, '31"),
        (Known(Category.DATE, "19311102"), "born 1931.11.02", "1931.11.02"),
        (Known(Category.PHONE, "+1 (617) 555-0142"), "call 617.555.0142", "617.555.0142"),
        (Known(Category.PHONE, "+1 (617) 555-0142"), "call 555 0142", "555 0142"),
        (Known(Category.MRN, "00123456"), "no 001-234-56 is", "001-234-56"),
        (
            Known(Category.ADDRESS, "12 Old Mill Road, Salem, MA 01970"),
            "near 12 OLD MILL ROAD",
            "12 OLD MILL ROAD",
        ),
    ],
)
def test_known_identifiers_are_found_however_they_are_written(known: Known, text: str, value: str) -> None:
    assert any(text[s.start : s.end] == value for s in known_spans(text, [known], ENGLISH))


def test_a_known_name_that_is_a_word_is_left_in_small_letters() -> None:
    text = "Will Rose will rise"
    spans = list(known_spans(text, [Known(Category.NAME, "Will Rose")], ENGLISH))
    assert all(span.end <= len("Will Rose") for span in spans)
