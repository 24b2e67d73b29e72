"""Every row of PS3.15 table E.1-1 under the profile and each of its options."""

import copy
import csv
import io
import json
from datetime import datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from deid.dicom.engine import Deidentifier
from deid.dicom.identities import Identities
from deid.dicom.profile import Action, Option, Profile, Rule, rules, type_of
from tests.deid.dicom.objects import (
    CR,
    CT,
    PATIENT_ID,
    SR,
    NoPixels,
    PlantedWords,
    base,
    every_attribute,
    marker,
    tag_of,
    vr_of,
)

COLUMNS = {  # of the shared copy of the table -> our options
    "cleanDescOpt": Option.CLEAN_DESCRIPTORS,
    "cleanGraphOpt": Option.CLEAN_GRAPHICS,
    "cleanStructContOpt": Option.CLEAN_STRUCTURED_CONTENT,
    "rtnUIDsOpt": Option.RETAIN_UIDS,
    "rtnDevIdOpt": Option.RETAIN_DEVICE_IDENTITY,
    "rtnInstIdOpt": Option.RETAIN_INSTITUTION_IDENTITY,
    "rtnPatCharsOpt": Option.RETAIN_PATIENT_CHARACTERISTICS,
    "rtnLongFullDatesOpt": Option.RETAIN_FULL_DATES,
    "rtnLongModifDatesOpt": Option.RETAIN_MODIFIED_DATES,
}
ALL_MODIFIED = frozenset(Option) - {Option.RETAIN_FULL_DATES}
CHOICES = [frozenset[Option](), *(frozenset((option,)) for option in Option), ALL_MODIFIED]
DATES = ("DA", "DT", "TM")


def cleaned(identities: Identities, options: frozenset[Option], sop_class: str) -> tuple[Dataset, int]:
    """The object with every attribute, cleaned, written to a file and read again; and the patient's shift."""
    made = Deidentifier(Profile(options), identities, pixels=NoPixels(), finder=PlantedWords())
    done = made.deidentify(every_attribute(sop_class))
    file = io.BytesIO()
    done.dataset.save_as(file, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(file.getvalue())), done.patient.shift_days


def asked(rule: Rule, options: frozenset[Option], sop_class: str) -> str:
    """What the standard's words ask for: written out here once more, not taken from the engine."""
    chosen = {rule.options[option].value for option in options if option in rule.options}
    if chosen:
        return "C" if "C" in chosen else "K"
    codes = rule.basic.replace("U*", "U").split("/")
    if len(codes) == 1:
        return codes[0]
    needed = type_of(rule.tag, sop_class=sop_class, parent=None)
    if needed == 1:
        return codes[-1]
    if needed == 2:
        return "Z" if "Z" in codes else codes[-1]
    return codes[0]


def shifted(text: str, vr: str, days: int) -> str:
    if vr == "TM":
        return text
    day = datetime.strptime(text[:8], "%Y%m%d") + timedelta(days=days)
    return f"{day:%Y%m%d}{text[8:]}"


def wrong(rule: Rule, result: Dataset, options: frozenset[Option], sop_class: str, days: int) -> str | None:
    """Say what is wrong with what became of one attribute, None if nothing is."""
    vr, action = vr_of(rule), asked(rule, options, sop_class)
    cleanable = vr in (*DATES, "LO", "SH", "LT", "ST", "UT", "UC", "SQ") and rule.tag != "00080201"
    if action == "C" and not cleanable:
        action = asked(rule, frozenset(), sop_class)  # removed rather than cleaned
    element = result.get(tag_of(rule))
    if element is None or action == "X":
        return None if element is None and action == "X" else f"there: {element is not None}"
    if rule.keyword in ("PatientName", "PatientID"):
        return None if str(element.value).isdecimal() else "is no pseudonym"
    if element.is_empty or action == "Z":
        return None if element.is_empty and action == "Z" else f"empty: {element.is_empty}"
    if vr == "SQ":
        return wrong_items(rule, str(element), action, Option.RETAIN_UIDS in options)
    return wrong_value(rule, element.value, action, days)


def wrong_items(rule: Rule, text: str, action: str, uids_stay: bool) -> str | None:
    if action == "D" and f"MK{tag_of(rule):08X}" in text:
        return "survived in its items"
    return "holds a UID of the hospital" if f"1.2.78.{tag_of(rule)}" in text and not uids_stay else None


def wrong_value(rule: Rule, after: object, action: str, days: int) -> str | None:
    vr = vr_of(rule)
    before = marker(tag_of(rule), vr)
    if action == "K":
        return None if after == before or str(after) == str(before) else "was not kept"
    if action == "C" and vr in DATES:
        return None if after == shifted(str(before), vr, days) else "was not shifted"
    if action == "U":
        return None if str(after).startswith("2.25.") else "is no mapped UID"
    return "survived" if str(before) in str(after) else None


@pytest.mark.parametrize(
    ("sop_class", "options"),
    [
        *((CT, options) for options in CHOICES),
        *(
            (kind, options)
            for kind in (CR, SR, "1.2.3.4.5")
            for options in (frozenset[Option](), ALL_MODIFIED)
        ),
    ],
)
def test_every_attribute_behaves_as_the_table_says(
    identities: Identities, options: frozenset[Option], sop_class: str
) -> None:
    result, days = cleaned(identities, options, sop_class)
    tried = [rule for rule in rules().values() if tag_of(rule) >> 16 not in (0, 2)]
    assert len(tried) == 652
    found = {rule.tag: wrong(rule, result, options, sop_class, days) for rule in tried}
    assert {tag: said for tag, said in found.items() if said} == {}


@pytest.mark.parametrize("options", CHOICES, ids=lambda chosen: "+".join(sorted(chosen))[:40] or "basic")
def test_no_marker_of_what_the_table_removes_is_anywhere_in_the_file(
    identities: Identities, options: frozenset[Option]
) -> None:
    made = Deidentifier(Profile(options), identities, pixels=NoPixels(), finder=PlantedWords())
    file = io.BytesIO()
    made.deidentify(every_attribute()).dataset.save_as(file, enforce_file_format=True)
    written = file.getvalue()
    for rule in rules().values():
        tag = tag_of(rule)
        if tag >> 16 not in (0, 2) and asked(rule, options, CT) in "XZDU":
            assert f"MK{tag:08X}".encode() not in written, rule
            if Option.RETAIN_UIDS not in options:
                assert f"1.2.77.{tag}".encode() not in written, rule
                assert f"1.2.78.{tag}".encode() not in written, rule
    assert PATIENT_ID.encode() not in written
    assert b"HOSPITALAE" not in written
    assert b"HIDDEN" not in written


def test_the_table_holds_at_every_depth(identities: Identities) -> None:
    source, whole = base(), every_attribute()
    item, middle = Dataset(), Dataset()
    for rule in rules().values():
        tag = tag_of(rule)
        if tag >> 16 not in (0, 2):
            item[tag] = copy.copy(whole[tag])
    item.PatientID = "SOMEBODY-ELSE"
    middle.ViewCodeSequence = [item]
    source.AnatomicRegionSequence = [middle]  # neither sequence is in the table
    made = Deidentifier(Profile(frozenset()), identities, pixels=NoPixels()).deidentify(source)
    file = io.BytesIO()
    made.dataset.save_as(file, enforce_file_format=True)
    assert made.dataset.AnatomicRegionSequence[0].ViewCodeSequence[0]
    for rule in rules().values():
        assert f"MK{tag_of(rule):08X}".encode() not in file.getvalue(), rule
        assert f"1.2.77.{tag_of(rule)}".encode() not in file.getvalue(), rule
    assert b"SOMEBODY-ELSE" not in file.getvalue()


def test_what_must_fail_fails(identities: Identities) -> None:
    """The check above is not blind: an object that nothing was done to has faults in most rows."""
    untouched = every_attribute()
    found = [wrong(rule, untouched, frozenset(), CT, 0) for rule in rules().values()]
    assert sum(said is not None for said in found) > 600


def test_the_table_is_the_standards(shared_data: Path) -> None:
    path = shared_data / "deid_dicom" / "ps315_e1-1_2026c_merged.json"
    wanted = {}
    for row in json.loads(path.read_text()):
        tag = row["tag"]
        if len(tag) == 4:  # value and mask
            group = tag[0][:2] + "xx"
            tag = [group, "xxxx" if tag[3] == "0000" else tag[1]]
        options = {COLUMNS[name]: Action(action) for name, action in row.get("options", {}).items()}
        wanted["".join(tag)] = (row["basic"], options)
    assert {tag: (rule.basic, rule.options) for tag, rule in rules().items()} == wanted
    assert len(wanted) == 655


def test_dates_in_full_and_modified_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        Profile(frozenset((Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES)))


def test_the_stricter_of_two_options_wins() -> None:
    """A date of calibration, with device identity retained and dates modified, is modified."""
    options = frozenset((Option.RETAIN_DEVICE_IDENTITY, Option.RETAIN_MODIFIED_DATES))
    assert Profile(options).action(0x0018700C, sop_class=CT) is Action.CLEAN


def test_types_resolve_compound_actions() -> None:
    basic = Profile(frozenset())
    content_date = {kind: basic.action(0x00080023, sop_class=kind) for kind in (CT, SR, "1.2.3")}
    assert content_date == {CT: Action.EMPTY, SR: Action.DUMMY, "1.2.3": Action.DUMMY}
    assert basic.action(0x00080080, sop_class=CT) is Action.REMOVE  # institution name: type 3
    assert basic.action(0x00080080, sop_class=CT, parent=0x00080096) is Action.DUMMY  # 1C below physicians


def test_the_table_file_has_one_row_a_tag() -> None:
    path = Path(__file__).parents[3] / "deid" / "dicom" / "profile_table.csv"
    tags = [row["tag"] for row in csv.DictReader(path.read_text().splitlines())]
    assert len(tags) == len(set(tags)) == 655
