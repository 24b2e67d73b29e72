"""What is done with which attribute: PS3.15 table E.1-1, read from profile_table.csv beside this module.

A compound action (X/Z, X/D, ...) depends on the type of the attribute in the object's IOD: type 1 must have
a value, type 2 must be there, type 3 may go. Conditional types count as unconditional, and in an IOD that is
not known every attribute counts as type 1: what is needed to conform stays, as a dummy.

Of two options the stricter wins: clean before keep.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

DICOM_ROOT = "1.2.840.10008."


class Option(StrEnum):
    """Options of the profile. The value is the column of the table, where the option has one."""

    CLEAN_PIXELS = "clean_pixels"
    CLEAN_GRAPHICS = "clean_graphics"
    CLEAN_STRUCTURED_CONTENT = "clean_structured_content"
    CLEAN_DESCRIPTORS = "clean_descriptors"
    RETAIN_FULL_DATES = "retain_full_dates"
    RETAIN_MODIFIED_DATES = "retain_modified_dates"
    RETAIN_PATIENT_CHARACTERISTICS = "retain_patient_characteristics"
    RETAIN_DEVICE_IDENTITY = "retain_device_identity"
    RETAIN_INSTITUTION_IDENTITY = "retain_institution_identity"
    RETAIN_UIDS = "retain_uids"
    RETAIN_SAFE_PRIVATE = "retain_safe_private"


class Action(StrEnum):
    """What becomes of one attribute."""

    DUMMY = "D"
    EMPTY = "Z"
    REMOVE = "X"
    KEEP = "K"
    CLEAN = "C"
    MAP_UID = "U"


# Context group 7050 of PS3.16: code and meaning, of the profile and of each option
PROFILE_CODE = ("113100", "Basic Application Confidentiality Profile")
OPTION_CODES = {
    Option.CLEAN_PIXELS: ("113101", "Clean Pixel Data Option"),
    Option.CLEAN_GRAPHICS: ("113103", "Clean Graphics Option"),
    Option.CLEAN_STRUCTURED_CONTENT: ("113104", "Clean Structured Content Option"),
    Option.CLEAN_DESCRIPTORS: ("113105", "Clean Descriptors Option"),
    Option.RETAIN_FULL_DATES: (
        "113106",
        "Retain Longitudinal Temporal Information Full Dates Option",
    ),
    Option.RETAIN_MODIFIED_DATES: (
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
    Option.RETAIN_PATIENT_CHARACTERISTICS: ("113108", "Retain Patient Characteristics Option"),
    Option.RETAIN_DEVICE_IDENTITY: ("113109", "Retain Device Identity Option"),
    Option.RETAIN_UIDS: ("113110", "Retain UIDs Option"),
    Option.RETAIN_SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
    Option.RETAIN_INSTITUTION_IDENTITY: ("113112", "Retain Institution Identity Option"),
}
RESEARCH = frozenset(  # what a node keeps of its images
    (
        Option.CLEAN_PIXELS, Option.CLEAN_GRAPHICS, Option.CLEAN_STRUCTURED_CONTENT, Option.CLEAN_DESCRIPTORS,
        Option.RETAIN_MODIFIED_DATES, Option.RETAIN_PATIENT_CHARACTERISTICS, Option.RETAIN_SAFE_PRIVATE,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. `basic` may be compound; `options` has K or C for those that change it."""

    tag: str
    keyword: str
    vr: str
    basic: str
    options: dict[Option, Action]


@dataclass(frozen=True, slots=True)
class Profile:
    """The profile with a choice of its options."""

    options: frozenset[Option]

    def __post_init__(self) -> None:
        if {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES} <= self.options:
            raise ValueError("dates are retained in full or modified, not both")

    def action(self, tag: int, *, sop_class: str, parent: int | None = None) -> Action | None:
        """Return what becomes of the attribute, None if the table does not name it.

        Args: parent: the tag of the sequence that holds it; None in the data set itself.
        """
        rule = rule_of(tag)
        if rule is None:
            return None
        asked = {action for option, action in rule.options.items() if option in self.options}
        if asked:
            return Action.CLEAN if Action.CLEAN in asked else Action.KEEP
        return basic_action(rule, sop_class=sop_class, parent=parent)

    def codes(self) -> list[tuple[str, str]]:
        """Return codes and meanings of what was done, for DeidentificationMethodCodeSequence."""
        return [PROFILE_CODE, *(OPTION_CODES[option] for option in Option if option in self.options)]


def basic_action(rule: Rule, *, sop_class: str, parent: int | None) -> Action:
    """Return the action of the profile without options, compound ones resolved by the IOD."""
    if "/" not in rule.basic:
        return Action(rule.basic)
    choices = rule.basic.split("/")
    kind = type_of(rule.tag, sop_class=sop_class, parent=parent)
    if kind == 1:
        if choices[-1] == "U*":
            return Action.MAP_UID
        return Action(choices[-1])
    if kind == 2:
        return Action.EMPTY if "Z" in choices else Action(choices[-1])
    return Action(choices[0])


@cache
def rules() -> dict[str, Rule]:
    """Return the table by tag: eight hexadecimal digits, x for those that may be any."""
    rows = _rows("profile_table.csv")
    columns = [option for option in Option if option.value in rows[0]]
    return {
        row["tag"]: Rule(
            row["tag"],
            row["keyword"],
            row["vr"],
            row["basic"],
            {option: Action(row[option.value]) for option in columns if row[option.value]},
        )
        for row in rows
    }


def rule_of(tag: int) -> Rule | None:
    """Return the row of the table that holds for a tag."""
    text, table = f"{tag:08X}", rules()
    if text[:2] == "50":
        return table["50xxxxxx"]
    if text[:2] == "60":
        return table.get(f"60xx{text[4:]}")
    return table.get(text)


@cache
def _types() -> dict[str, dict[str, int]]:
    return {
        row["sop_class"]: dict.fromkeys(row["type_2"].split(), 2) | dict.fromkeys(row["type_1"].split(), 1)
        for row in _rows("iod_types.csv")
    }


def type_of(tag: str, *, sop_class: str, parent: int | None) -> int:
    """Return 1, 2 or 3: how much the object's IOD asks of the attribute; 1 if the IOD is not known."""
    known = _types().get(sop_class.removeprefix(DICOM_ROOT)) if sop_class.startswith(DICOM_ROOT) else None
    if known is None:
        return 1
    return known.get(tag, 3) if parent is None else _types()["*"].get(f"{parent:08X}/{tag}", 3)


@cache
def safe_private() -> dict[tuple[int, str, int], str]:
    """Return the VR of private attributes that are known safe, by group, creator and element."""
    return {
        (int(row["group"], 16), row["creator"], int(row["element"], 16)): row["vr"]
        for row in _rows("safe_private.csv")
    }


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("deid.dicom") / name).read_text(encoding="ascii")
    return list(csv.DictReader(text.splitlines()))
