"""What sources call the codes that lead nowhere, and words where a code should be: for a person to map.

Words may hold identity ("Anna's knee"), so the store learns them only once `COMMON` patients of this hospital
have had the very same ones. Until then it holds a keyed number in place of the words, and whose they were;
from then on the words, and nobody.

Words without a code are a code of their own, in the system `local:text`: the words in lower case. As that
is what an accepted mapping names, "heart attack", "MI" and I21.9 can come to one concept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deid.vault import Vault
from node.ingest.facts import Kind
from node.omop.code_map import CODE_CHARACTERS, VOCABULARY_CHARACTERS, WORDS_CHARACTERS
from node.omop.concepts import UNIT, WORDS_SYSTEM, Choice

COMMON = 11  # patients: CMS cell-size suppression policy, as in the node's reports
KINDS = (Kind.CONDITION, Kind.DRUG, Kind.PROCEDURE, Kind.MEASUREMENT, Kind.OBSERVATION)
MAX_NOTED = 50_000  # different words of one load: some 20 MB; a source with more writes no labels
_MAKE = """
CREATE TABLE IF NOT EXISTS fedtwin_code_words (
  number BIGINT NOT NULL,
  persons BIGINT[] NOT NULL,
  kind VARCHAR,
  source_vocabulary_id VARCHAR,
  source_code VARCHAR,
  words VARCHAR)
"""
Key = tuple[str, str, str, str]  # kind, system, code, words


@dataclass(slots=True)
class CodeWords:
    """Collects the words of one load: whose they were, of at most `COMMON`."""

    found: dict[Key, set[int]] = field(default_factory=dict)

    def add(
        self, facts: pa.Table, there: NDArray[np.int64], choices: list[Choice], choice: NDArray[np.int32],
        persons: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Note the words of facts whose codes came to nothing. `choice`, `persons`: those of `there`."""
        nowhere = np.array([not one.mapped and not one.source_concept_id for one in choices], dtype=bool)
        rows = np.flatnonzero(nowhere[choice])
        if not len(rows):
            return
        some = facts.select(["kind", "codes", "text"]).take(pa.array(there[rows])).combine_chunks()
        first = _first(some["codes"].combine_chunks())
        spoken = pc.coalesce(
            first.field("display"), some["text"].combine_chunks(), pa.scalar("", pa.string())
        )
        system, code = (pc.fill_null(first.field(name), "") for name in ("system", "code"))
        bare = pc.equal(code, "")
        columns = (
            some["kind"].combine_chunks(),
            pc.if_else(bare, WORDS_SYSTEM, system),
            pc.if_else(bare, _as_code(spoken), pc.utf8_trim_whitespace(code)),
            pc.if_else(bare, _as_code(spoken), pc.utf8_trim_whitespace(spoken)),
        )
        keys = pc.binary_join_element_wise(*columns, UNIT).dictionary_encode()
        places = keys.indices.to_numpy()
        whose = persons[rows]
        order = np.lexsort((whose, places))
        places, whose = places[order], whose[order]
        fresh = np.ones(len(places), dtype=bool)
        fresh[1:] = (places[1:] != places[:-1]) | (whose[1:] != whose[:-1])
        places, whose = places[fresh], whose[fresh]
        bounds = np.searchsorted(places, np.arange(len(keys.dictionary) + 1)).tolist()
        for place, line in enumerate(keys.dictionary.to_pylist()):
            key = _key(line)
            if key is not None and (key in self.found or len(self.found) < MAX_NOTED):
                known = self.found.setdefault(key, set())
                if len(known) < COMMON:
                    known.update(
                        whose[bounds[place] : min(bounds[place] + COMMON, bounds[place + 1])].tolist()
                    )

    def note(self, writer: duckdb.DuckDBPyConnection, vault: Vault) -> None:
        """Put what was collected into the store, within the load's transaction."""
        if not self.found:
            return
        writer.execute(_MAKE)
        keys = sorted(self.found)
        numbers = vault.record_ids([UNIT.join(key).encode() for key in keys], label="words").tolist()
        before: Mapping[int, list[int]] = dict(
            writer.execute(
                "SELECT number, persons FROM fedtwin_code_words WHERE number IN (SELECT unnest(?))"
                " AND words IS NULL",
                [numbers],
            ).fetchall()
        )
        told = {
            row[0]
            for row in writer.execute(
                "SELECT number FROM fedtwin_code_words WHERE number IN (SELECT unnest(?))"
                " AND words IS NOT NULL",
                [numbers],
            ).fetchall()
        }
        rows: list[tuple[object, ...]] = []
        for number, key in zip(numbers, keys, strict=True):
            persons = self.found[key] | set(before.get(number, ()))
            if number in told:
                continue
            common = len(persons) >= COMMON
            rows.append((number, [], *key) if common else (number, sorted(persons), None, None, None, None))
        writer.execute(
            "DELETE FROM fedtwin_code_words WHERE number IN (SELECT unnest(?))", [[row[0] for row in rows]]
        )
        columns = list(zip(*rows, strict=True)) or [()] * 6
        types = (pa.int64(), pa.list_(pa.int64()), *[pa.string()] * 4)
        names = ["number", "persons", "kind", "source_vocabulary_id", "source_code", "words"]
        table = pa.table([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names)
        writer.register("fedtwin_batch", table)
        writer.execute("INSERT INTO fedtwin_code_words BY NAME SELECT * FROM fedtwin_batch")
        writer.unregister("fedtwin_batch")


def _key(line: str) -> Key | None:
    """Return the parts of a written key, if they are of a kind and a size that can be mapped."""
    if line.count(UNIT) != 3:
        return None
    kind, system, code, words = line.split(UNIT)
    fits = 0 < len(code) <= CODE_CHARACTERS and 0 < len(words) <= WORDS_CHARACTERS
    return (kind, system[:VOCABULARY_CHARACTERS], code, words) if fits and kind in KINDS else None


def forget(writer: duckdb.DuckDBPyConnection) -> None:
    """Take who withdrew out of those whose words are not common."""
    writer.execute(_MAKE)
    left = [row[0] for row in writer.execute("SELECT person_id FROM fedtwin_withdrawn").fetchall()]
    writer.execute(
        "UPDATE fedtwin_code_words SET persons = list_filter(persons, lambda one: NOT list_contains(?, one))"
        " WHERE list_has_any(persons, ?)",
        [left, left],
    )
    writer.execute("DELETE FROM fedtwin_code_words WHERE words IS NULL AND len(persons) = 0")


def instead_of_codes(texts: pa.Array, facts: pa.Table, there: NDArray[np.int64]) -> pa.Array:
    """Return written codings, with the facts' words in place of those that are empty."""
    some = facts.select(["kind", "text"]).take(pa.array(there)).combine_chunks()
    words = _as_code(pc.fill_null(some["text"].combine_chunks(), ""))
    fits = pc.and_(
        pc.greater(pc.utf8_length(words), 0), pc.less_equal(pc.utf8_length(words), CODE_CHARACTERS)
    )
    fits = pc.and_(fits, pc.is_in(some["kind"].combine_chunks(), pa.array([kind.value for kind in KINDS])))
    coded = pc.binary_join_element_wise(pa.scalar(WORDS_SYSTEM), words, UNIT)
    return pc.if_else(pc.and_(pc.equal(texts, ""), fits), coded, texts)


def _as_code(words: pa.Array) -> pa.Array:
    return pc.utf8_lower(pc.replace_substring_regex(pc.utf8_trim_whitespace(words), r"\s+", " "))


def _first(codes: pa.ListArray) -> pa.StructArray:
    """The first coding of each list; null where there is none."""
    flat = codes.flatten()
    lengths = pc.fill_null(pc.list_value_length(codes), 0).to_numpy()
    places = np.cumsum(lengths) - lengths
    return flat.take(pa.array(places, mask=lengths == 0))
