"""The sections of a clinical note, by its headings: what a problem means depends on where it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Section(StrEnum):
    """What a part of a note is about."""

    COMPLAINT = "chief complaint"
    PRESENT = "history of present illness"
    PAST = "past medical history"
    FAMILY = "family history"
    SOCIAL = "social history"
    ALLERGIES = "allergies"
    MEDICATIONS = "medications"
    REVIEW = "review of systems"
    EXAM = "physical examination"
    RESULTS = "results"
    ASSESSMENT = "assessment"
    PLAN = "plan"
    COURSE = "hospital course"
    INSTRUCTIONS = "instructions"
    OTHER = "other"


_HEADINGS = {
    Section.COMPLAINT: "chief complaint|cc|reason for (?:visit|admission|consultation)|presenting complaint",
    Section.PRESENT: "history of (?:the )?present(?:ing)? (?:illness|complaint)|hpi|present "
    "illness|interval history|subjective|history",
    Section.PAST: "past (?:medical|surgical) history|(?:medical|surgical) history|pmh|pmhx|psh|past "
    "history|previous history|problem list",
    Section.FAMILY: "family (?:medical )?history|fh|fhx|famhx",
    Section.SOCIAL: "social history|sh|shx|habits",
    Section.ALLERGIES: "allerg(?:y|ies)|drug allergies|adverse reactions",
    Section.MEDICATIONS: "(?:current |home |discharge |admission )?(?:medications?|meds|drugs)(?: on "
    "admission| at discharge)?",
    Section.REVIEW: "review of systems|ros|systems review",
    Section.EXAM: "(?:physical )?exam(?:ination)?|pe|objective|vital signs|vitals",
    Section.RESULTS: "(?:lab(?:oratory)? )?(?:results|data|studies|findings)|labs|imaging|radiology|"
    "investigations",
    Section.ASSESSMENT: "assessment(?: (?:and|&) "
    "plan)?|impression|diagnos[ie]s|a/p|(?:admission|discharge|final|principal) "
    "diagnos[ie]s|conclusion",
    Section.PLAN: "plan|recommendations?|disposition|follow[- ]?up",
    Section.COURSE: "(?:hospital|ed|emergency department|brief hospital) course|course",
    Section.INSTRUCTIONS: "(?:discharge |patient )?instructions|return precautions",
}  # fmt: skip
# A heading begins a line and ends with a colon, or has the line to itself.
_HEADING = re.compile(
    r"^[ \t#*=-]*(?:"
    + "|".join(f"(?P<{section.name}>{words})" for section, words in _HEADINGS.items())
    + r")[ \t*=]*(?::|$)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A section: text[begin:end], its heading left out."""

    section: Section
    begin: int
    end: int


def parts(text: str) -> list[Part]:
    """Return the sections of a note in order; what stands before the first heading is OTHER.

    >>> [(part.section.name, "PMH: asthma"[part.begin:part.end]) for part in parts("PMH: asthma")]
    [('PAST', ' asthma')]
    """
    found: list[Part] = []
    section, begin = Section.OTHER, 0
    for heading in _HEADING.finditer(text):
        if text[begin : heading.start()].strip() or section is not Section.OTHER:
            found.append(Part(section, begin, heading.start()))
        section, begin = Section[heading.lastgroup or "OTHER"], heading.end()
    if text[begin:].strip() or section is not Section.OTHER:
        found.append(Part(section, begin, len(text)))
    return found
