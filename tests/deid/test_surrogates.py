"""Identity replaced by what reads like it: the same for each mention, and nobody's."""

import re
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deid.gold_formats import read
from deid.spans import Category, Known, Span
from deid.surrogates import BAR, Replacement, Style, replaced
from deid.surrogates_dates import DateShift, shifted_date
from deid.surrogates_draw import words_of
from deid.surrogates_names import lists
from deid.surrogates_numbers import could_be_valid, iban, luhn, vin
from deid.surrogates_places import towns
from deid.vault import PseudonymKey

KEY, OTHER_KEY = PseudonymKey(bytes(range(32))), PseudonymKey(bytes(range(1, 33)))
SHIFT = DateShift(-41)
OURS = Replacement(Style.SURROGATE, KEY, SHIFT)
KEYS = st.binary(min_size=32, max_size=32).map(PseudonymKey)
NAMES = [name for by in lists().values() for names in by.values() for name in names]


def one(
    value: str, category: Category, replacement: Replacement = OURS, known: tuple[Known, ...] = ()
) -> str:
    """Return what stands for one identifier in a short text."""
    text = f"<< {value} >>"
    result = replaced(text, [Span(3, 3 + len(value), category)], replacement, known=known)
    assert result.text.startswith("<< ")
    assert result.text.endswith(" >>")
    (span,) = result.spans
    return result.text[span.start : span.end]


def name(value: str) -> str:
    return one(value, Category.NAME)


# names


def test_each_form_of_a_name_stays_a_form_of_one_name() -> None:
    given, family = name("Ann Lee").split()
    assert name("Lee, Ann") == f"{family}, {given}"
    assert name("LEE, ANN") == f"{family}, {given}".upper()
    assert name("Mrs. Lee's") == f"Mrs. {family}'s"
    assert name("A. Lee") == f"{given[0]}. {family}"
    assert name("ann lee") == f"{given} {family}".lower()
    assert name("Ann Lee-Ann") == f"{given} {family}-{given}"
    assert {given, family}.isdisjoint({"Ann", "Lee"})


@pytest.mark.parametrize(("word", "kind"), [("Mary", "female"), ("James", "male"), ("Smith", "surname")])
def test_a_name_becomes_one_of_its_kind(word: str, kind: str) -> None:
    kinds = {option: which for which, by in lists().items() for names in by.values() for option in names}
    assert kinds[name(word)] == kind


def test_titles_and_particles_stay_and_names_that_look_like_them_do_not() -> None:
    made = name("Dr. Juan de la Cruz, MD")
    assert re.fullmatch(r"Dr\. \w+ de la \w+, MD", made)
    assert "Juan" not in made
    assert "Cruz" not in made
    assert "Al" not in name("Al Gore").split()
    assert "Van" not in name("Van Morrison").split()


def test_a_surrogate_is_never_another_name_of_the_same_text() -> None:
    surrogate = name("Lee")
    taken = one("Lee", Category.NAME, known=(Known(Category.NAME, surrogate),))
    assert taken not in ("Lee", surrogate)
    text = f"Lee {surrogate}"
    both = replaced(text, [Span(0, 3, Category.NAME), Span(4, len(text), Category.NAME)], OURS).text
    assert not words_of([both]) & words_of([text])


# dates


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2013-03-03", "2013-01-21"),
        ("2013-03-03T10:15:00Z", "2013-01-21T10:15:00Z"),
        ("2003-02-01 12:13:52", "2002-12-22 12:13:52"),
        ("20130303", "20130121"),
        ("03/03/2013", "01/21/2013"),
        ("3/3/13", "1/21/13"),
        ("13-12-2015", "02-11-2015"),
        ("12.13.2015", "11.02.2015"),
        ("March 3rd, 2013", "January 21st, 2013"),
        ("MAR 3, 2013", "JAN 21, 2013"),
        ("3 March 2013", "21 January 2013"),
        ("8-Oct-2008", "28-Aug-2008"),
        ("Sunday, March 3, 2013", "Monday, January 21, 2013"),
        ("on the 3rd of March", "on the 21st of January"),
        ("3/3", "1/21"),
        ("March 2013", "February 2013"),
        ("3/2013", "2/2013"),
        ("3 de marzo de 2013", "21 de enero de 2013"),
        ("Tuesday", "Wednesday"),
        ("2013", "2013"),
        ("'13", "'13"),
    ],
)
def test_a_date_moves_and_keeps_its_form(before: str, after: str) -> None:
    assert shifted_date(before, SHIFT) == after


@pytest.mark.parametrize("value", ["Christmas", "02/30/2013", "31/31/2013", "soon", "3/3/3/3", "", "99/99"])
def test_what_is_no_date_that_can_be_read_becomes_a_tag(value: str) -> None:
    assert shifted_date(value, SHIFT) is None
    if value:
        assert one(value, Category.DATE) == "[DATE]"


def test_the_order_of_day_and_month_is_a_choice() -> None:
    assert shifted_date("03/04/2013", DateShift(1)) == "03/05/2013"
    assert shifted_date("03/04/2013", DateShift(1, day_first=True)) == "04/04/2013"


FULL_FORMS = ("%Y-%m-%d", "%m/%d/%Y", "%B %d, %Y", "%d %b %Y", "%Y/%m/%d", "%a %d %B %Y")


@given(
    st.dates(date(1902, 1, 1), date(2040, 1, 1)),
    st.integers(0, 40_000),
    st.sampled_from(FULL_FORMS),
    st.sampled_from(FULL_FORMS),
    st.integers(-365, 365).filter(bool),
    st.booleans(),
)
def test_the_days_between_two_full_dates_stay_the_same(
    first: date, later: int, form: str, other: str, days: int, weekdays: bool
) -> None:
    from datetime import datetime

    shift = DateShift(days, keep_weekday=weekdays)
    second = first + timedelta(days=min(later, (date(2090, 1, 1) - first).days))
    moved = []
    for when, how in ((first, form), (second, other)):
        if when.month == 5:  # "May" does not show whether months are written out
            how = how.replace("%b", "%B")
        made = shifted_date(when.strftime(how), shift)
        assert made is not None
        moved.append(datetime.strptime(made, how).date())
        form_of = re.compile(r"\b0(?=\d\b)")  # where there was no zero it is not known that there would be
        assert form_of.sub("", moved[-1].strftime(how)) == form_of.sub("", made)  # with its own weekday
    assert moved[1] - moved[0] == second - first
    assert moved[0] != first
    if weekdays:
        assert moved[0].weekday() == first.weekday()


def test_a_shift_of_no_days_cannot_be_made_and_keeping_weekdays_never_gives_one() -> None:
    with pytest.raises(ValueError, match="moves nothing"):
        DateShift(0)
    moved = {DateShift(days, keep_weekday=True).moved_days for days in range(-365, 366) if days}
    assert 0 not in moved
    assert all(days % 7 == 0 for days in moved)
    assert "41" not in repr(SHIFT)


# numbers, contacts, places


def test_numbers_keep_their_form() -> None:
    assert re.fullmatch(r"[A-Z]{2}-\d{7}-\d{2}", one("AC-3928904-03", Category.ACCOUNT))
    assert re.fullmatch(r"MRN: [1-9]\d{6}", one("MRN: 8404915", Category.MRN))
    assert one("LV 7876 05942", Category.MRN).replace(" ", "-") == one("LV-7876-05942", Category.MRN)


@settings(max_examples=200)
@given(KEYS, st.sampled_from(["4111111111111111", "1234567893", "9434765919", "GB82WEST12345698765432",
                              "1M8GDM9AXKP042788", "12345678", "00000000000"]))  # fmt: skip
def test_no_surrogate_of_a_number_passes_a_check_that_real_numbers_pass(
    key: PseudonymKey, value: str
) -> None:
    made = one(value, Category.ACCOUNT, Replacement(Style.SURROGATE, key))
    assert len(made) == len(value)
    assert not could_be_valid(made)
    if made.isdigit():
        assert not luhn(made)
    elif len(made) == 17:
        assert not vin(made)
    else:
        assert not iban(made)


def test_the_checks_pass_what_is_valid() -> None:
    assert all(map(could_be_valid, ("4111111111111111", "1234567893", "9434765919", "GB82WEST12345698765432",
                                    "1M8GDM9AXKP042788")))  # fmt: skip


@settings(max_examples=200)
@given(KEYS, st.sampled_from(["(212) 736-5000", "212.736.5000 x14", "+1 212 736 5000", "736-5000"]))
def test_north_american_numbers_become_numbers_kept_for_fiction(key: PseudonymKey, value: str) -> None:
    made = one(value, Category.PHONE, Replacement(Style.SURROGATE, key))
    digits = "".join(filter(str.isdigit, made.split("x")[0]))
    assert re.fullmatch(r"(1?[2-9]\d\d)?55501\d\d", digits)
    assert re.sub(r"\d", "9", made) == re.sub(r"\d", "9", value)


@settings(max_examples=200)
@given(KEYS, st.sampled_from(["078-05-1120", "078051120", "078 05 1120"]))
def test_social_security_numbers_come_from_an_area_that_is_not_issued(key: PseudonymKey, value: str) -> None:
    made = one(value, Category.SSN, Replacement(Style.SURROGATE, key))
    assert re.fullmatch(r"9\d\d[- ]?[0-4]\d[- ]?\d{4}", made)
    assert re.sub(r"\d", "9", made) == re.sub(r"\d", "9", value)


def test_contacts_become_ones_that_nobody_can_have() -> None:
    assert re.fullmatch(r"[a-z]+\.\d{4}@example\.(com|org|net)", one("Ann.Lee@nhs.uk", Category.EMAIL))
    assert re.fullmatch(r"https://example\.\w+/[a-z]{7}/\d{4}",
                        one("https://records.nhs.uk/patient/1234", Category.URL))  # fmt: skip
    assert re.fullmatch(r"http://www\.[a-z]+\.example\.\w+/", one("http://www.lee.com/", Category.URL))
    assert one("10.1.2.3", Category.IP).startswith(("192.0.2.", "198.51.100.", "203.0.113."))
    assert one("fe80::1", Category.IP).startswith("2001:db8:")
    assert one("07911 123456", Category.PHONE).startswith("07700 900")


def test_a_place_becomes_one_of_its_size_and_the_state_stays() -> None:
    assert one("Chicago", Category.ADDRESS) in towns()[500_000]
    made = one("1883 Thistle Road, Boulder, CO 80517", Category.ADDRESS)
    number, street, town, zip_code = re.fullmatch(
        r"(\d{4}) (\w+) Road, ([\w' .-]+), CO (\d{5})", made
    ).groups()
    assert town in towns()[100_000]
    assert (number, street, zip_code) != ("1883", "Thistle", "80517")


def test_an_institution_keeps_what_it_is_and_loses_what_it_is_called() -> None:
    assert re.fullmatch(r"\w+ General Hospital", one("Tallwick General Hospital", Category.HOSPITAL))
    assert "Tallwick" not in one("Tallwick General Hospital", Category.HOSPITAL)
    assert one("General Hospital", Category.HOSPITAL) == "[HOSPITAL]"  # nothing in it that could change


def test_ages_of_ninety_and_above_are_one_category() -> None:
    assert one("97", Category.AGE) == "90+"


# styles, places in the text, and what is promised of all of it


def test_tags_say_the_kind_and_bars_say_nothing() -> None:
    assert one("Ann Lee", Category.NAME, Replacement(Style.TAG)) == "[NAME]"
    assert one("Ann Lee", Category.NAME, Replacement(Style.REDACT)) == BAR
    assert one("Bo", Category.NAME, Replacement(Style.REDACT)) == BAR
    assert one("3/3/2013", Category.DATE, Replacement(Style.SURROGATE, KEY)) == "[DATE]"
    with pytest.raises(ValueError, match="key"):
        Replacement(Style.SURROGATE)


def test_text_outside_the_spans_stays_and_the_new_spans_lie_on_the_replacements() -> None:
    text = "Ann Lee (MRN 8404915) on 2013-03-03, Ann again."
    spans = [Span(37, 40, Category.NAME), Span(0, 7, Category.NAME), Span(13, 20, Category.MRN)]
    result = replaced(text, spans, OURS)
    first, number, last = (result.text[span.start : span.end] for span in result.spans)
    assert result.text == f"{first} (MRN {number}) on 2013-03-03, {last} again."
    assert first.split()[0] == last
    assert "Ann" not in repr(result)
    with pytest.raises(ValueError, match="beyond"):
        replaced("Ann", [Span(0, 4, Category.NAME)], OURS)


WORDED = {
    Category.NAME: st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(" ".join),
    Category.MRN: st.from_regex(r"[1-9]\d{6,8}", fullmatch=True),
    Category.ACCOUNT: st.from_regex(r"[A-Z]{2}-[1-9]\d{6}", fullmatch=True),
    Category.PHONE: st.from_regex(r"\([2-9]\d\d\) [2-9]\d\d-\d{4}", fullmatch=True),
    Category.SSN: st.from_regex(r"\d{3}-\d\d-\d{4}", fullmatch=True),
    Category.EMAIL: st.from_regex(r"[a-z]{5,9}@[a-z]{5,9}\.com", fullmatch=True),
    Category.ADDRESS: st.sampled_from(towns()[5_000] + towns()[20_000]),
}
IDENTIFIERS = st.lists(
    st.sampled_from(list(WORDED)).flatmap(lambda kind: st.tuples(st.just(kind), WORDED[kind])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(IDENTIFIERS, KEYS)
def test_no_output_holds_any_identifier_of_the_input_and_the_same_input_and_key_give_the_same(
    identifiers: list[tuple[Category, str]], key: PseudonymKey
) -> None:
    text, spans = "", []
    for kind, value in identifiers:
        text += "; "
        spans.append(Span(len(text), len(text) + len(value), kind))
        text += value
    replacement = Replacement(Style.SURROGATE, key, SHIFT)
    result = replaced(text, spans, replacement)
    assert result == replaced(text, spans, replacement)
    out = {word.casefold() for word in re.findall(r"[^\W_]+", result.text)}
    joined = re.sub(r"[\W_]", "", result.text).casefold()
    for kind, value in identifiers:
        assert value.casefold() not in result.text.casefold()
        if kind in (Category.MRN, Category.SSN, Category.PHONE):
            assert re.sub(r"\W", "", value) not in joined
        if kind is Category.NAME:
            assert not {word.casefold() for word in value.split()} & out


def test_without_the_key_the_outputs_of_two_hospitals_cannot_be_linked() -> None:
    """Of the same person at two hospitals, one surrogate says no more about the other than a stranger's."""
    people = [f"{first} {last}" for first, last in zip(NAMES[:400], NAMES[-400:], strict=True)]
    theirs = Replacement(Style.SURROGATE, OTHER_KEY, DateShift(97))
    at_one = [name(person) for person in people]
    at_other = [one(person, Category.NAME, theirs) for person in people]
    again = [name(person) for person in people]
    assert at_one == again  # the test would see a link
    same = sum(a == b for a, b in zip(at_one, at_other, strict=True))
    stranger = sum(a == b for a, b in zip(at_one, at_other[1:] + at_other[:1], strict=True))
    assert same <= stranger + 3
    numbers = [str(8_000_000 + 37 * n) for n in range(400)]
    pairs = [(one(n, Category.MRN), one(n, Category.MRN, theirs)) for n in numbers]
    assert not any(a == b for a, b in pairs)


def test_surrogates_of_the_public_sets_hold_no_marked_identifier(shared_data: Path) -> None:
    for file in ("dev_outis_cc0", "dev_presidio_synth_v2"):
        for document in read(shared_data / "deid_text" / f"{file}.json")[:300]:
            spans = [Span(mark.start, mark.end, mark.category) for mark in document.spans]
            result = replaced(document.text, spans, OURS)
            new = [result.text[span.start : span.end].casefold() for span in result.spans]
            for mark in document.spans:
                value = document.text[mark.start : mark.end].casefold()
                if len(value) >= 4 and mark.category not in (Category.DATE, Category.AGE):
                    assert not [made for made in new if value in made], (document.id, mark.label)
