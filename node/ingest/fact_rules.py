"""What a hospital may choose about facts: which states and intents count, what text is kept.

A small TOML, `ingest.toml` in the node's home, may change it; what it leaves out is as here:

    [status]                        # states that give records, by kind; others are turned away as "status"
    procedure = ["completed"]
    condition = ["confirmed"]
    [intent]
    drug = ["order", "plan"]
    [text]
    values = "words"                # or "redacted": results in words, through deid.text
    notes = "none"                  # or "redacted"
    [time]
    zone = "Europe/Berlin"          # of HL7 v2 times that say no offset; without it they stand as written

Whatever is "entered-in-error" is retracted, whatever the lists say. A fact without a state counts.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from node.ingest.errors import MalformedMapping
from node.ingest.facts import Kind
from node.ingest.toml_section import Section

ENTERED_IN_ERROR = "entered-in-error"

# The OHDSI conventions, and HL7's words for the same beside FHIR's.
_STATUS: dict[str, tuple[str, ...]] = {
    Kind.PROCEDURE: ("completed",),
    Kind.MEASUREMENT: ("final", "amended", "corrected", "appended", "f", "c"),
    Kind.OBSERVATION: ("final", "amended", "corrected", "appended", "f", "c", "active", "completed",
        "confirmed"),
    Kind.CONDITION: ("confirmed", "active", "recurrence", "relapse", "inactive", "remission", "resolved"),
    Kind.DRUG: ("active", "completed", "stopped", "on-hold", "ended", "in-progress", "dispensed", "unknown"),
    Kind.VISIT: ("finished", "completed", "discharged", "in-progress", "arrived", "triaged", "onleave"),
    Kind.DEVICE: ("active", "completed", "inactive", "intended", "unknown"),
}  # fmt: skip
_INTENT: dict[str, tuple[str, ...]] = {
    Kind.DRUG: ("order", "original-order", "reflex-order", "filler-order", "instance-order"),
}
# Results in words that everybody writes and nobody is known by.
WORDS = MappingProxyType(
    {
        "positive": 9191,
        "pos": 9191,
        "negative": 9189,
        "neg": 9189,
        **dict.fromkeys(
            (
                "normal", "abnormal", "detected", "not detected", "reactive", "nonreactive", "non-reactive",
                "present", "absent", "trace", "none", "none seen", "yes", "no", "high", "low",
                "equivocal", "indeterminate", "borderline", "growth", "no growth", "clear", "cloudy",
                "turbid",
                "yellow", "amber", "red", "brown", "few", "many", "moderate", "rare", "small", "large",
                "mild", "severe", "+", "++", "+++", "++++", "1+", "2+", "3+", "4+", "susceptible",
                "intermediate", "resistant",
                "a", "b", "ab", "o", "a+", "a-", "b+", "b-", "ab+", "ab-", "o+", "o-", "m", "f",
                "s", "i", "r", "hazy", "straw", "light yellow", "dark yellow",
                "true", "false", "unknown", "pending",
            ),
            0,
        ),
    }
)  # fmt: skip


class TextPolicy(StrEnum):
    """What text becomes of."""

    NONE = "none"
    WORDS = "words"  # the short list above, and numbers with their comparison
    REDACTED = "redacted"  # through deid.text: what identifies is found and replaced by its kind


@dataclass(frozen=True, slots=True)
class FactRules:
    """The choices. The defaults are OHDSI's conventions, and no free text."""

    status: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(_STATUS))
    intent: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(_INTENT))
    values: TextPolicy = TextPolicy.WORDS
    notes: TextPolicy = TextPolicy.NONE
    zone: str = field(default="", repr=False)  # in the version of readers that have use for it

    def counts(self, kind: str, status: str | None, intent: str | None) -> bool:
        """Return whether a fact of this kind, state and intent gives a record."""
        states, intents = self.status.get(kind), self.intent.get(kind)
        return (status is None or states is None or status in states) and (
            intent is None or intents is None or intent in intents
        )


def read_rules(path: Path) -> FactRules:
    """Return the rules of a file, or the defaults if there is none. Raises: MalformedMapping."""
    if not path.is_file():
        return FactRules()
    try:
        whole = Section(path.name, "", tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise MalformedMapping(path.name, "$", "is not TOML") from None
    text = whole.section("text", None)
    times = whole.section("time", None)
    rules = FactRules(
        status=_STATUS | _words(whole, "status"),
        intent=_INTENT | _words(whole, "intent"),
        values=text.choice("values", TextPolicy, TextPolicy.WORDS) if text else TextPolicy.WORDS,
        notes=text.choice("notes", TextPolicy, TextPolicy.NONE) if text else TextPolicy.NONE,
        zone=_zone(times) if times else "",
    )
    if text:
        text.done()
    whole.done()
    return rules


def _zone(times: Section) -> str:
    name: str = times.text("zone")
    times.done()
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        times.fail("zone", "is not a time zone of IANA, such as Europe/Berlin")
    return name


def _words(whole: Section, name: str) -> dict[str, tuple[str, ...]]:
    section = whole.section(name, None)
    if section is None:
        return {}
    found = {kind.value: section.texts(kind.value, ()) for kind in Kind}
    section.done()
    return {kind: tuple(word.lower() for word in words) for kind, words in found.items() if words}
