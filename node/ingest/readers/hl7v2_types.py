"""HL7's data types as facts want them: codes, identifiers, numbers, ranges."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple

from node.ingest.readers.hl7v2_lexer import NULL, Delimiters, Message, unescaped

SYSTEMS = {
    "LN": "http://loinc.org",
    "LOINC": "http://loinc.org",
    "SCT": "http://snomed.info/sct",
    "SNM": "http://snomed.info/sct",
    "SNM3": "http://snomed.info/sct",
    "SNOMED": "http://snomed.info/sct",
    "SNOMEDCT": "http://snomed.info/sct",
    "I9": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9CDX": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9CP": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9M": "http://hl7.org/fhir/sid/icd-9-cm",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "I10P": "http://www.cms.gov/Medicare/Coding/ICD10",
    "C4": "http://www.ama-assn.org/go/cpt",
    "CPT": "http://www.ama-assn.org/go/cpt",
    "CPT4": "http://www.ama-assn.org/go/cpt",
    "HCPCS": "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "HCPT": "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "CVX": "http://hl7.org/fhir/sid/cvx",
    "MVX": "http://hl7.org/fhir/sid/mvx",
    "NDC": "http://hl7.org/fhir/sid/ndc",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "RXN": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "ATC": "http://www.whocc.no/atc",
    "WC": "http://www.whocc.no/atc",
    "UCUM": "http://unitsofmeasure.org",
    "NCIT": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "CDCREC": "urn:oid:2.16.840.1.113883.6.238",
    "HL70005": "urn:oid:2.16.840.1.113883.6.238",  # race: the CDC's codes
    "HL70189": "urn:oid:2.16.840.1.113883.6.238",  # ethnic group: likewise, beside H, N and U
}
"""HL7 table 0396, and how systems are written besides, to FHIR's URIs. I10 is the WHO's ICD-10."""
HL7_TABLE = re.compile(r"HL7[0-9]{4}")
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
COMPARED = re.compile(r"(<=|>=|<|>|=)?\s*(\S+)")
_NUM = r"[+-]?[0-9]+(?:\.[0-9]+)?"
RANGE = re.compile(rf"\s*({_NUM})\s*(?:-|–|to|\.\.)\s*({_NUM})\s*", re.ASCII | re.IGNORECASE)
BOUND = re.compile(rf"\s*(<=?|>=?)\s*({_NUM})\s*", re.ASCII)

REMEMBERED_CHARACTERS = 512  # of a field that is kept as parsed: a cache holds thousands of them

Coding = tuple[str | None, str | None, str | None]  # system, code, display


class Concept(NamedTuple):
    """What CE, CWE, CNE and CF say: codings, the sender's preferred one first, and words. Never changed."""

    codings: list[Coding]
    text: str | None

    @property
    def said(self) -> bool:
        """Whether it says anything."""
        return bool(self.codings or self.text)

    @property
    def name(self) -> str:
        """The first code, else the words: what a key can stand on."""
        return (self.codings[0][1] if self.codings else self.text) or ""


NOTHING = Concept([], None)


@lru_cache(maxsize=1024)
def system_of(name: str, where: str) -> str:
    """Return the system that a coding names. A name that is nobody else's is local to `where`."""
    upper = name.upper().replace(" ", "")
    if (known := SYSTEMS.get(upper)) is not None:
        return known
    return upper if HL7_TABLE.fullmatch(upper) else f"local:{name or where}"


def concept(message: Message, raw: str, *, where: str, system: str = "") -> Concept:
    """Return the concept of one repetition. `system` is what a coding without one is of.

    `where` names the field ("OBX-3"): local codes without a system are local to it.
    """
    if not raw:
        return NOTHING
    parse = _concept if len(raw) + len(system) < REMEMBERED_CHARACTERS else _concept.__wrapped__
    return parse(raw, message.delimiters, message.encoding, where, system)


@lru_cache(maxsize=8192)  # a hospital's laboratory has some thousand tests
def _concept(raw: str, signs: Delimiters, encoding: str, where: str, system: str) -> Concept:
    parts = [unescaped(part, signs, encoding).strip() for part in raw.split(signs.component)]
    if NULL in raw:
        parts = ["" if part == NULL else part for part in parts]
    if len(parts) == 1:
        return Concept([(system_of(system, where), parts[0], None)], None) if parts[0] else NOTHING
    codings: list[Coding] = []
    text = parts[8] if len(parts) > 8 and parts[8] else None
    for at in (0, 3, 9):
        code, display, named = (*parts[at : at + 3], "", "", "")[:3]
        if code:
            codings.append((system_of(named or system, where), code, display or None))
        if display and text is None:
            text = display
    return Concept(codings, text)


class Identifier(NamedTuple):
    """What CX says about who: id, whose ids these are, and the type (MR, SS, ...)."""

    id: str
    authority: str
    type: str


def identifier(message: Message, raw: str) -> Identifier:
    """Return one CX. The authority is its name, else its universal id."""
    parse = _identifier if len(raw) < REMEMBERED_CHARACTERS else _identifier.__wrapped__
    return parse(raw, message.delimiters, message.encoding)


@lru_cache(maxsize=8192)  # who is in the hospital now
def _identifier(raw: str, signs: Delimiters, encoding: str) -> Identifier:
    parts = [_plain(part, signs, encoding) for part in raw.split(signs.component)]
    kind = parts[4].upper() if len(parts) > 4 else ""
    if len(parts) < 4:
        return Identifier(parts[0], "", kind)
    authority = raw.split(signs.component)[3].split(signs.subcomponent)
    named = next((said for part in authority[:2] if (said := _plain(part, signs, encoding))), "")
    return Identifier(
        _plain(raw.split(signs.component)[0].split(signs.subcomponent)[0], signs, encoding), named, kind
    )


def _plain(raw: str, signs: Delimiters, encoding: str) -> str:
    return "" if raw == NULL else unescaped(raw, signs, encoding).strip()


def unit(message: Message, raw: str) -> str | None:
    """Return a unit's code, else its words."""
    if not raw:
        return None
    parse = _unit if len(raw) < REMEMBERED_CHARACTERS else _unit.__wrapped__
    return parse(raw, message.delimiters, message.encoding)


@lru_cache(maxsize=1024)
def _unit(raw: str, signs: Delimiters, encoding: str) -> str | None:
    return next(
        (said for part in raw.split(signs.component)[:2] if (said := _plain(part, signs, encoding))), None
    )


def entity(message: Message, segment: list[str], number: int) -> str:
    """Return an EI as one text, id and who gave it; "" if there is none."""
    raw = message.field(segment, number)
    if not raw:
        return ""
    parts = message.components(raw.partition(message.delimiters.repetition)[0])
    if not parts[0].strip():
        return ""
    return "^".join(part.strip() for part in parts[:3]).rstrip("^")


def number(text: str) -> float | None:
    """Return a finite number, or None.

    >>> number("1,5") is None, number("4.06"), number("1e999") is None
    (True, 4.06, True)
    """
    text = text.strip()
    if len(text) > 40 or not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def compared(text: str) -> tuple[str | None, float] | None:
    """Return operator and number of "<15" or "98.00"; the operator of equality is None."""
    found = COMPARED.fullmatch(text.strip())
    if found is None or (value := number(found[2])) is None:
        return None
    return (None if found[1] in (None, "=") else found[1]), value


def reference_range(text: str) -> tuple[float | None, float | None]:
    """Return low and high of "49 - 92", "4.3 to 6.2", "<5" and ">60"; what else is said gives neither."""
    return _range(text) if len(text) <= 60 else (None, None)


@lru_cache(maxsize=4096)
def _range(text: str) -> tuple[float | None, float | None]:
    if found := RANGE.fullmatch(text):
        low, high = float(found[1]), float(found[2])
        return (low, high) if low <= high else (None, None)
    if found := BOUND.fullmatch(text):
        value = float(found[2])
        return (None, value) if found[1][0] == "<" else (value, None)
    return None, None
