"""Who a batch of facts is about, and the numbers of what it tells of.

Patients become pseudonyms; keys become numbers that are the same whenever and wherever a source is read
again, and that nobody finds a key by without the vault's.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deid.vault import Vault
from node.ingest.fact_columns import Columns, as_bytes, encoded
from node.ingest.facts import PART_MARK, Kind
from node.omop.concepts import RECORD, UNIT
from node.omop.fact_loading import FactLoad

RANK_BITS = 62
OTHER_NAMESPACE = (
    "other_patient_namespace"  # detail of a merge, a move: whose id `other_patient` is, if not the same
)


class Names:
    """The numbers of one batch, 0 where there is nothing to name.

    person, shift     the patient's pseudonym and days
    group, base       of the person, the kind and the key; of the record that the fact gives
    key_id            of the key; base_key_id: of what the fact is a part of; other_key_id: of the other key
    thing             of the kind and the key, whoever's; whole: of what is told as a whole
    visit             of the person's encounter; visit_thing: of the encounter, whoever's
    rank              which of two versions of one time holds
    keyed             whether the fact has a key of its own
    """

    def __init__(
        self,
        columns: Columns,
        load: FactLoad,
        vault: Vault,
        *,
        source_sha256: str,
        marks_parts: bool,
    ) -> None:
        self._columns = columns
        self._vault = vault
        self.person, self.shift = self.patients("patient")
        keyed_retraction = columns.retracts & columns.has("key")
        columns.drop((self.person == 0) & ~keyed_retraction, "patient", "missing-patient")
        staying = ~load.has_left(self.person) | columns.withdraws | columns.merges
        columns.drop(~staying, "patient", "withdrawn")
        self._keys(source_sha256, marks_parts)

    def patients(self, name: str, spaces: pa.ChunkedArray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return person id and shift per fact; 0 where there is no patient."""
        facts = self._columns.facts
        texts = pc.utf8_trim_whitespace(pc.fill_null(facts[name], ""))
        spaces = self._columns.spaces() if spaces is None else spaces
        joined = encoded(pc.binary_join_element_wise(spaces, texts, UNIT))
        names = joined.dictionary.to_pylist()
        ids, shifts = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
        by_space: dict[str, list[int]] = {}
        for place, text in enumerate(names):
            space, _, patient = text.partition(UNIT)
            if patient:
                by_space.setdefault(space, []).append(place)
        for space, places in by_space.items():
            patients = [names[place].partition(UNIT)[2] for place in places]
            found = self._vault.pseudonyms(patients, namespace=space)
            ids[places], shifts[places] = found.ids, found.shift_days
        index = joined.indices.to_numpy()
        return ids[index], shifts[index]

    def others(self) -> tuple[np.ndarray, np.ndarray]:
        """Return who the other patients of merges and moves are, and their shifts."""
        spaces = self._columns.spaces()
        if self._columns.detailed:  # the other number may be of another authority
            spaces = pc.coalesce(pa.chunked_array([self._columns.detail(OTHER_NAMESPACE)]), spaces)
        return self.patients("other_patient", spaces)

    def _keys(self, source_sha256: str, marks_parts: bool) -> None:
        columns, facts, kind = self._columns, self._columns.facts, self._columns.kind
        key = pc.if_else(
            pc.equal(facts["kind"], Kind.VISIT.value),
            pc.coalesce(facts["encounter"], facts["key"]),
            facts["key"],
        )
        key = pc.if_else(
            pc.equal(facts["kind"], Kind.PERSON.value), pc.coalesce(facts["key"], pa.scalar("")), key
        )
        self.keyed = pc.is_valid(key).to_numpy(zero_copy_only=False)
        own = pc.binary_join_element_wise(
            pa.scalar(source_sha256), pc.cast(facts["record"], pa.string()), RECORD
        )
        space = columns.spaces()
        name = pc.binary_join_element_wise(
            _texts(self.person), facts["kind"],
            pc.if_else(pa.chunked_array([pa.array(self.keyed)]), "key", "file"), pc.coalesce(key, own), UNIT,
        )  # fmt: skip
        self.group = self._vault.record_ids(as_bytes(name), label="group") ^ self._described()
        salts, places = self._salts(facts["place"])
        self.base = self.group ^ salts[places]
        self._twice(self.base)
        self.key_id = self._named(space, facts["key"])
        self._things(space, key)
        self.base_key_id = self.key_id
        if marks_parts:
            parts = pc.fill_null(pc.match_substring(facts["key"], PART_MARK), False)
            if (marked := parts.to_numpy(zero_copy_only=False)).any():
                wholes = pc.replace_substring_regex(facts["key"], rf"(?s){PART_MARK}.*$", "")
                self.base_key_id = np.where(marked, self._named(space, wholes), self.key_id)
        self.other_key_id = self._named(space, facts["other_key"])
        self._wholes()
        source_rank = int(source_sha256[:16], 16) >> (64 - RANK_BITS)
        self.rank = (source_rank + columns.record) & (2**RANK_BITS - 1)
        self.visit = self.visits(self.person, facts["encounter"])
        self.visit_thing = np.where(
            self.visit == 0, 0, self._named(space, facts["encounter"]) ^ self._kind_salt(Kind.VISIT)
        )
        # a visit is what others name: its place does not matter
        self.base = np.where(kind == Kind.VISIT, self.group, self.base)

    def visits(self, person: np.ndarray, encounters: pa.ChunkedArray) -> np.ndarray:
        """Return the numbers of persons' visits."""
        name = pc.binary_join_element_wise(_texts(person), Kind.VISIT.value, "key", encounters, UNIT)
        return self._numbered(name, "group")

    def _things(self, space: pa.ChunkedArray, key: pa.ChunkedArray) -> None:
        """Names of what a fact is a version of, whoever's it is; a description of a person stands alone."""
        kind = self._columns.kind
        visits = pa.chunked_array([pa.array(kind == Kind.VISIT)])
        ids = np.where(
            kind == Kind.VISIT,
            self._named(space, pc.if_else(visits, key, pa.scalar(None, pa.string()))),
            self.key_id,
        )
        salts = np.empty(self._columns.size, np.int64)
        for one in set(kind.tolist()):
            salts[kind == one] = self._kind_salt(one)
        self.thing = np.where(kind == Kind.PERSON, self.group, ids ^ salts)

    def _kind_salt(self, kind: str) -> int:
        return int(self._vault.record_ids([str(kind).encode()], label="kind")[0])

    def _wholes(self) -> None:
        """Names of what is told as a whole: a resource by its type, anything else by its key."""
        places = encoded(self._columns.facts["place"])
        words = pc.extract_regex(places.dictionary, r"^(?P<type>[A-Z][a-z][A-Za-z]*)")
        types = pc.fill_null(pc.struct_field(words, "type"), "").to_pylist()
        salts = self._vault.record_ids([word.encode() for word in types], label="place")
        salt = salts[places.indices.to_numpy()]
        self.whole = np.where(self._columns.kind == Kind.PERSON, 0, self.base_key_id ^ salt)

    def _named(self, spaces: pa.ChunkedArray, keys: pa.ChunkedArray) -> np.ndarray:
        """The numbers of keys, 0 where there is none."""
        return self._numbered(pc.binary_join_element_wise(spaces, keys, UNIT), "key")

    def _numbered(self, names: pa.ChunkedArray, label: str) -> np.ndarray:
        """The number of each name, each made once; 0 for null."""
        numbers = np.zeros(self._columns.size, np.int64)
        if names.null_count == self._columns.size:
            return numbers
        found = encoded(names)
        made = self._vault.record_ids(as_bytes(found.dictionary), label=label)
        there = found.is_valid().to_numpy(zero_copy_only=False)
        numbers[there] = made[found.indices.drop_null().to_numpy()]
        return numbers

    def _described(self) -> np.ndarray:
        """A description of a person replaces only those that say as much: 0 to 15 by what it says."""
        says = np.zeros(self._columns.size, np.int64)
        for bit, name in enumerate(("birth", "sex", "race", "ethnicity")):
            says |= self._columns.has(name).astype(np.int64) << bit
        return np.where(self._columns.kind == Kind.PERSON, says, 0)

    def _salts(self, texts: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        found = encoded(texts)
        names = [text.encode() for text in found.dictionary.to_pylist()]
        return self._vault.record_ids(names, label="place"), found.indices.to_numpy()

    def _twice(self, base: np.ndarray) -> None:
        """Facts of one record with one key and place get ids of their own, in their order."""
        mixed = base ^ (self._columns.record * np.int64(0x9E3779B97F4A7C1))
        order = np.argsort(mixed, kind="stable")
        same = np.concatenate([[False], mixed[order][1:] == mixed[order][:-1]])
        if not same.any():
            return
        run = np.arange(len(order)) - np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        nth = np.empty(len(order), np.int64)
        nth[order] = run
        base ^= nth * np.int64(0x2545F4914F6CDD1) & np.int64(2**63 - 1)


def _texts(numbers: np.ndarray) -> pa.ChunkedArray:
    return pc.cast(pa.chunked_array([pa.array(numbers)]), pa.string())
