"""Codes of a source -> concepts of OMOP, by the vocabulary that the store holds.

A code's system is a FHIR URI, an OID, a table of HL7, an OMOP vocabulary_id or "local:<where>";
`code_systems.csv` beside this file says which vocabularies it may mean. What the hospital itself has mapped
(`source_to_concept_map`) goes first, then the vocabulary's 'Maps to' and 'Maps to value', then the concept
itself if it is standard. Of several codings of one thing, the first that leads to a standard concept holds,
else the first that the vocabulary knows, else the first. What leads nowhere is concept 0, never dropped.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import duckdb
import pyarrow as pa

UNIT, RECORD = "\x1f", "\x1e"  # between a coding's system and code, between codings
WORDS_SYSTEM = "local:text"  # words that stand where a code should (node.ingest.code_words)
ANYWHERE = "any"  # the source_vocabulary_id of a mapping that holds in every system (node.omop.code_map)
SOURCE_VALUE_CHARACTERS = 50  # OMOP: varchar(50)
_UNDOTTED = {
    "ICD10CM": 3,
    "ICD10": 3,
    "ICD10GM": 3,
    "ICD9CM": 3,
    "ICD9Proc": 2,
}  # the dot comes after so many
_NDC_DIGITS = 11


@dataclass(frozen=True, slots=True)
class Target:
    """One concept that a code stands for. Concept 0: none."""

    concept_id: int = 0
    domain: str | None = None
    value_concept_id: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a list of codings came to: `targets` has at least one."""

    source_value: str | None
    source_concept_id: int
    targets: tuple[Target, ...]

    @property
    def mapped(self) -> bool:
        """Whether there is a standard concept."""
        return bool(self.targets[0].concept_id)


NOTHING = Choice(None, 0, (Target(),))


@cache
def code_systems() -> MappingProxyType[str, tuple[str, ...]]:
    """Return the vocabularies by system, the more likely one first."""
    found: dict[str, tuple[str, ...]] = {}
    text = resources.files("node.omop").joinpath("code_systems.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        found[row["system"]] = (*found.get(row["system"], ()), row["vocabulary_id"])
    return MappingProxyType(found)


def written(codings: Iterable[tuple[str | None, str | None]]) -> str:
    """Return (system, code) pairs as the one text that `Concepts` knows them by."""
    return RECORD.join(f"{system or ''}{UNIT}{code or ''}" for system, code in codings)


class Concepts:
    """Looks codes up, each once. The vocabulary must not change while this is in use."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._found: dict[str, Choice] = {"": NOTHING}

    def choices(self, texts: Sequence[str]) -> list[Choice]:
        """Return what each written list of codings comes to."""
        fresh = list(dict.fromkeys(text for text in texts if text not in self._found))
        if fresh:
            self._learn(fresh)
        return [self._found[text] for text in texts]

    def _learn(self, texts: list[str]) -> None:
        codings = {text: _codings(text) for text in texts}
        wanted = list(dict.fromkeys(pair for pairs in codings.values() for pair in pairs))
        own = self._own(wanted)
        elsewhere = self._own(wanted, anywhere=True)
        known = self._known(wanted)
        targets = self._targets({concept for concept, _, _ in known.values()})
        for text, pairs in codings.items():
            self._found[text] = _best(
                [
                    _choice(pair, own.get(pair), known.get(pair), targets, elsewhere.get(pair))
                    for pair in pairs
                ]
            )

    def _own(
        self, wanted: list[tuple[str, str]], *, anywhere: bool = False
    ) -> dict[tuple[str, str], list[Target]]:
        """The hospital's own mappings; `anywhere`: those that hold in whatever system a code stands."""
        found: dict[tuple[str, str], list[Target]] = {}
        rows = self._asked(
            [
                (place, name, form)
                for place, (system, code) in enumerate(wanted)
                for name in ((ANYWHERE,) if anywhere else _names(system))
                for form in _forms(name, code)
            ],
            "SELECT DISTINCT place, target_concept_id, domain_id FROM wanted JOIN source_to_concept_map m"
            " ON m.source_vocabulary_id = name AND m.source_code = code AND m.invalid_reason IS NULL"
            " LEFT JOIN concept ON concept_id = target_concept_id WHERE target_concept_id <> 0 ORDER BY ALL",
        )
        for place, concept, domain in rows:
            found.setdefault(wanted[place], []).append(Target(concept, domain))
        return found

    def _known(self, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, str, bool]]:
        """Concept id, domain and whether it is standard, of the codes that the vocabulary has."""
        asked = []
        for place, (system, code) in enumerate(wanted):
            for order, vocabulary in enumerate(_vocabularies(system)):
                asked += [(place * 8 + order, vocabulary, form) for form in _forms(vocabulary, code)]
        rows = self._asked(
            asked,
            "SELECT place, concept_id, domain_id, coalesce(standard_concept, '') = 'S' FROM wanted"
            " JOIN concept ON vocabulary_id = name AND concept_code = code"
            " ORDER BY place, invalid_reason IS NOT NULL, concept_id",
        )
        found: dict[tuple[str, str], tuple[int, str, bool]] = {}
        for place, concept, domain, standard in rows:
            found.setdefault(wanted[place // 8], (concept, domain, standard))
        return found

    def _targets(self, sources: set[int]) -> dict[int, list[Target]]:
        if not sources:
            return {}
        rows = self._asked(
            [(concept, "", "") for concept in sorted(sources)],
            "SELECT place, relationship_id, concept_id_2, t.domain_id FROM wanted"
            " JOIN concept_relationship r ON concept_id_1 = place AND r.invalid_reason IS NULL"
            " AND relationship_id IN ('Maps to', 'Maps to value')"
            " JOIN concept t ON t.concept_id = concept_id_2 AND t.standard_concept = 'S' ORDER BY 1, 3",
        )
        values = {place: concept for place, kind, concept, _ in reversed(rows) if kind == "Maps to value"}
        found: dict[int, list[Target]] = {}
        for place, kind, concept, domain in rows:
            if kind == "Maps to":
                found.setdefault(place, []).append(Target(concept, domain, values.get(place)))
        return found

    def _asked(self, rows: list[tuple[int, str, str]], statement: str) -> list[tuple]:  # type: ignore[type-arg]
        if not rows:
            return []
        places, names, codes = zip(*rows, strict=True)
        wanted = pa.table(
            {
                "place": pa.array(places, pa.int64()),
                "name": pa.array(names, pa.string()),
                "code": pa.array(codes, pa.string()),
            }
        )
        self._cursor.register("wanted", wanted)
        try:
            return self._cursor.execute(statement).fetchall()
        finally:
            self._cursor.unregister("wanted")


def _codings(text: str) -> list[tuple[str, str]]:
    found = []
    for coding in text.split(RECORD):
        system, _, code = coding.partition(UNIT)
        if code.strip():
            found.append((system.strip(), code.strip()))
    return found


def _vocabularies(system: str) -> tuple[str, ...]:
    return code_systems().get(system) or code_systems().get(system.upper()) or ((system,) if system else ())


def _names(system: str) -> tuple[str, ...]:
    """What the hospital may have written for a system in its own mappings."""
    return tuple(dict.fromkeys((system, system[:20], *_vocabularies(system))))


def _forms(vocabulary: str, code: str) -> tuple[str, ...]:
    """A code as written, and as the vocabulary writes it: claims leave out ICD's dot and NDC's zeros."""
    places = _UNDOTTED.get(vocabulary)
    if places is not None and "." not in code:
        if vocabulary == "ICD9CM" and code[:1].upper() == "E":
            places = 4
        if len(code) > places:
            return (f"{code[:places]}.{code[places:]}", code)
    if vocabulary == "NDC":
        parts = code.split("-")
        if len(parts) == 3:
            return (parts[0].zfill(5) + parts[1].zfill(4) + parts[2].zfill(2), code)
        if code.isdigit() and len(code) < _NDC_DIGITS:
            return (code.zfill(_NDC_DIGITS), code)
    return (code,)


def _choice(
    coding: tuple[str, str],
    own: list[Target] | None,
    known: tuple[int, str, bool] | None,
    targets: dict[int, list[Target]],
    elsewhere: list[Target] | None,
) -> Choice:
    value = coding[1][:SOURCE_VALUE_CHARACTERS]
    source = known[0] if known else 0
    if own:
        return Choice(value, source, tuple(own))
    if elsewhere and not (known and (targets.get(known[0]) or known[2])):
        return Choice(value, source, tuple(elsewhere))
    if known is None:  # words may hold identity: they are stored once somebody has mapped them
        return Choice(None if coding[0] == WORDS_SYSTEM else value, 0, (Target(),))
    concept, domain, standard = known
    found = targets.get(concept)
    if found:
        return Choice(value, concept, tuple(found))
    if standard:
        return Choice(value, concept, (Target(concept, domain),))
    return Choice(value, concept, (Target(0, domain),))


def _best(choices: list[Choice]) -> Choice:
    if not choices:
        return NOTHING
    return next(
        (choice for choice in choices if choice.mapped),
        next((choice for choice in choices if choice.source_concept_id), choices[0]),
    )
