"""Problems and drugs in the stored notes: rows of OMOP's note_nlp, by dictionary and rules.

The dictionary is what the store's vocabulary calls its conditions and drug ingredients, synonyms included.
Short words in capitals ("MI") are found in capitals only. Of overlapping names the longest holds. Only the
stored text is read, which has been through de-identification. The same notes and vocabulary give the same
rows, however often they are made; rows of notes that are gone go with them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from node.ingest.note_context import Context, context, sentences
from node.ingest.note_sections import Section, parts
from node.omop.store import OmopStore

SYSTEM = "fedtwin note_nlp"
VERSION = 1
LONGEST_NAME = 6  # words: longer names of a vocabulary are not what anyone writes in a note
SNIPPET_CHARACTERS = 250  # OMOP: varchar(250)
_AROUND = 80
_SHORT = 4  # letters: below, a name in capitals must stand in capitals
_NOTES = 500  # at a time
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9'/+-]*")
_COMMON = frozenset({"ad", "cold", "flutter"})  # names that mean something else more often than not
_COLUMNS = (
    "note_nlp_id", "note_id", "section_concept_id", "snippet", '"offset"', "lexical_variant",
    "note_nlp_concept_id",
    "note_nlp_source_concept_id", "nlp_system", "nlp_date", "nlp_datetime", "term_exists", "term_temporal",
    "term_modifiers",
)  # fmt: skip
_INSERT = f"INSERT INTO note_nlp ({', '.join(_COLUMNS)}) SELECT * FROM fedtwin_batch"  # noqa: S608 (our names)


@dataclass(frozen=True, slots=True)
class Mention:
    """A concept named in a text: text[begin:end], where, and what is said of it."""

    concept_id: int
    begin: int
    end: int
    section: Section
    context: Context

    @property
    def temporal(self) -> str:
        """OMOP's term_temporal."""
        return "Past" if self.context.past else "Future" if self.context.hypothetical else "Present"

    @property
    def modifiers(self) -> str:
        """OMOP's term_modifiers: name=value, separated by commas."""
        said = {
            "negation": "negated" if self.context.negated else "affirmed",
            "experiencer": "family" if self.context.family else "patient",
            "certainty": "uncertain" if self.context.unsure else "certain",
            "section": self.section.value,
        }
        return ",".join(f"{name}={value}" for name, value in said.items())


class Dictionary:
    """Names of concepts, found in texts word by word."""

    def __init__(self, names: Iterable[tuple[int, str]]) -> None:
        """Of two concepts of one name the smaller id holds, so that the order of names does not matter."""
        self._names: dict[tuple[str, ...], tuple[int, bool]] = {}
        for concept, name in sorted(names):
            bare = re.sub(r"\s*\([^)]*\)", "", name)
            for form in {name, bare}:
                words = tuple(_stem(found.group()) for found in _WORD.finditer(form))
                if not 0 < len(words) <= LONGEST_NAME or form.lower() in _COMMON or len("".join(words)) < 2:
                    continue
                capitals = form.isupper() and len(form) <= _SHORT
                self._names.setdefault(words, (concept, capitals))

    def find(self, text: str, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (concept, begin, end) of the names in text[begin:end], from the left, the longest first."""
        words = [(found.group(), *found.span()) for found in _WORD.finditer(text, begin, end)]
        stems = [_stem(word) for word, _, _ in words]
        at = 0
        while at < len(words):
            for length in range(min(LONGEST_NAME, len(words) - at), 0, -1):
                found = self._names.get(tuple(stems[at : at + length]))
                if found and (not found[1] or words[at][0].isupper()):
                    yield found[0], words[at][1], words[at + length - 1][2]
                    at += length
                    break
            else:
                at += 1


def _stem(word: str) -> str:
    lower = word.lower().removesuffix("'s")
    plural = len(lower) > _SHORT and lower.endswith("s") and not lower.endswith(("ss", "is", "us"))
    return lower[:-1] if plural else lower


def mentions(text: str, dictionary: Dictionary) -> list[Mention]:
    """Return what the text names, in order."""
    found = []
    for part in parts(text):
        for sentence in sentences(text, part.begin, part.end):
            for concept, begin, end in dictionary.find(text, *sentence):
                said = context(text, sentence, (begin, end), part.section)
                found.append(Mention(concept, begin, end, part.section, said))
    return found


def dictionary_of(store: OmopStore) -> Dictionary:
    """Return the names of the store's conditions and drug ingredients."""
    rows = store.connection.con.execute(
        "WITH fit AS (SELECT concept_id, concept_name FROM concept WHERE standard_concept = 'S'"
        " AND invalid_reason IS NULL"
        " AND (domain_id = 'Condition' OR (domain_id = 'Drug' AND concept_class_id = 'Ingredient')))"
        " SELECT concept_id, concept_name FROM fit UNION"
        " SELECT concept_id, concept_synonym_name FROM concept_synonym JOIN fit USING (concept_id)"
    ).fetchall()
    return Dictionary(rows)


def annotate(store: OmopStore, *, now: datetime) -> int:
    """Make the rows of note_nlp for all stored notes anew, in one transaction; return how many there are."""
    dictionary = dictionary_of(store)
    total = 0
    with store.cursor() as cursor, store.writing() as writer:
        writer.execute("DELETE FROM note_nlp WHERE nlp_system LIKE ?", [f"{SYSTEM} %"])
        notes = cursor.execute(
            "SELECT note_id, note_text, note_date FROM note WHERE note_text <> '' ORDER BY 1"
        )
        while batch := notes.fetchmany(_NOTES):
            rows = [row for note, text, _ in batch for row in _rows(note, text, dictionary, now)]
            if rows:
                names = [column.strip('"') for column in _COLUMNS]
                columns = zip(names, zip(*rows, strict=True), strict=True)
                writer.register("fedtwin_batch", pa.table({name: list(values) for name, values in columns}))
                writer.execute(_INSERT)
                writer.unregister("fedtwin_batch")
            total += len(rows)
    return total


def _rows(note: int, text: str, dictionary: Dictionary, now: datetime) -> Iterator[tuple[object, ...]]:
    at = now.astimezone(UTC).replace(tzinfo=None)
    for found in mentions(text, dictionary):
        name = f"{note} {found.begin} {found.concept_id}".encode()
        number = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) >> 1
        snippet = text[max(0, found.begin - _AROUND) : found.end + _AROUND][:SNIPPET_CHARACTERS]
        yield (
            number, note, 0, snippet, str(found.begin), text[found.begin : found.end][:SNIPPET_CHARACTERS],
            found.concept_id, 0, f"{SYSTEM} {VERSION}", at.date(), at, "Y" if found.context.exists else "N",
            found.temporal, found.modifiers,
        )  # fmt: skip
