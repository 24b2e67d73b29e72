"""Facts become records of the CDM: where identity ends and codes become concepts.

One `Harmonizer` takes the batches of one source into one open load. Per batch, in columns: patients become
pseudonyms and dates move (deid); keys become record ids that are the same whenever the source is loaded;
states, dates and texts are judged; codes, units and values are mapped; SQL puts each record where its
concept's domain belongs (node.ingest.cdm_areas). What is turned away is noted by record, field and reason:

    missing-patient  missing-date  implausible-date  status  withdrawn  text-withheld  implausible-birth
    missing-target (of a link or a merge)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deid.dates import DatePractice, stored_days, year_of
from deid.errors import NotRedacted
from deid.spans import Known
from deid.text import Redactor
from deid.vault import Vault
from node.ingest import cdm_areas
from node.ingest.code_words import CodeWords, instead_of_codes
from node.ingest.columns import moment_at
from node.ingest.errors import Unaccounted
from node.ingest.fact_rules import ENTERED_IN_ERROR, WORDS, FactRules, TextPolicy
from node.ingest.facts import OPEN_AGAIN, PART_MARK, START, START_UNSAID, Action, FactBatch, Kind, Precision
from node.ingest.records import EARLIEST_DAY, OLDEST_AGE_ON_RECORD
from node.omop.concepts import RECORD, UNIT, Choice, Concepts
from node.omop.fact_loading import FactLoad
from node.omop.units import conversion, ucum_of

DAY_US = 86_400_000_000
_NULL = int(np.iinfo(np.int64).min)
_RANK_BITS = 62
OTHER_NAMESPACE = "other_patient_namespace"  # detail of a merge: whose id `other_patient` is, if not the same
_REMEMBERED = 100_000  # pseudonyms, texts: some 20 MB each
_DATED = (  # kinds of records that need a day
    Kind.VISIT, Kind.CONDITION, Kind.DRUG, Kind.PROCEDURE, Kind.MEASUREMENT, Kind.OBSERVATION, Kind.DEVICE,
    Kind.DEATH, Kind.NOTE, Kind.COVERAGE, Kind.IMAGE,
)  # fmt: skip

_OF_VISITS = (  # kinds of records that move with the visit that they name
    Kind.CONDITION, Kind.DRUG, Kind.PROCEDURE, Kind.MEASUREMENT, Kind.OBSERVATION, Kind.DEVICE, Kind.NOTE,
    Kind.IMAGE, Kind.COST,
)  # fmt: skip


@dataclass(slots=True)
class Count:
    """How the records of a source came out. `reasons` counts records, by the first reason of each."""

    records_in: int = 0
    stored: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class Harmonizer:
    """Takes the batches of one source. Not thread-safe."""

    def __init__(
        self,
        load: FactLoad,
        vault: Vault,
        concepts: Concepts,
        *,
        source_name: str,
        source_sha256: str,
        rules: FactRules,
        practice: DatePractice,
        latest_day: int,
        redact: Redactor,
        marks_parts: bool = False,
    ) -> None:
        self._load = load
        self._vault = vault
        self._concepts = concepts
        self._source_name = source_name
        self._sha256 = source_sha256
        self._rules = rules
        self._practice = practice
        self._latest_day = latest_day
        self._redact = redact
        self._marks_parts = marks_parts
        self._identities: dict[tuple[str, str], tuple[Known, ...]] = {}
        self._leaving: set[tuple[str, str]] = set()
        self._known: dict[str, dict[str, tuple[int, int]]] = {}
        self._texts: dict[str, str | None] = {}
        self._units: dict[str, int] = {}
        self._rank = int(source_sha256[:16], 16) >> (64 - _RANK_BITS)
        self.words = CodeWords()
        self.count = Count()

    def take(self, batch: FactBatch) -> None:
        """Stage the records of a batch. Raises: Unaccounted if the reader lost a record."""
        self._load.next_batch()
        self._learn(batch)
        columns = _Columns(batch.facts, self)
        notes = columns.notes
        notes += [(away.record, away.field, away.reason, away.whole_record) for away in batch.turned_away]
        columns.stage()
        self._tally(batch, columns)
        self._load.quarantine(
            pa.table(
                {
                    "source_row": pa.array([note[0] for note in notes], pa.int64()),
                    "field": pa.array([note[1] for note in notes], pa.string()),
                    "reason": pa.array([note[2] for note in notes], pa.string()),
                    "whole_row": pa.array([note[3] for note in notes], pa.bool_()),
                }
            )
        )

    def _tally(self, batch: FactBatch, columns: _Columns) -> None:
        """Records in = stored + turned away, or the reader is wrong."""
        if batch.records == 0:  # facts of records that were kept before
            return
        stored = set(columns.record[columns.good].tolist())
        reasons: dict[int, str] = {}
        for away in batch.turned_away:
            if away.whole_record:
                reasons.setdefault(away.record, away.reason)
        for record, _field, reason, _whole in columns.notes:
            reasons.setdefault(record, reason)
        quarantined = reasons.keys() - stored
        for place, note in enumerate(columns.notes):
            if note[0] in quarantined and not note[3]:
                columns.notes[place] = (*note[:3], True)
        count = self.count
        count.records_in += batch.records
        count.stored += len(stored) + batch.kept
        count.quarantined += len(quarantined)
        count.reasons.update(reasons[record] for record in quarantined)
        if len(stored) + batch.kept + len(quarantined) != batch.records:
            raise Unaccounted(
                self._source_name,
                records_in=batch.records,
                stored=len(stored),
                quarantined=len(quarantined),
            )

    def pseudonyms(self, space: str, patients: list[str]) -> tuple[list[int], list[int]]:
        """Return the patients' ids and shifts; the last of them are remembered."""
        known = self._known.setdefault(space, {})
        if len(known) > _REMEMBERED:
            known.clear()
        fresh = [patient for patient in patients if patient not in known]
        if fresh:
            found = self._vault.pseudonyms(fresh, namespace=space)
            known.update(
                zip(fresh, zip(found.ids.tolist(), found.shift_days.tolist(), strict=True), strict=True)
            )
        ids, shifts = zip(*(known[patient] for patient in patients), strict=True)
        return list(ids), list(shifts)

    def _learn(self, batch: FactBatch) -> None:
        """Have the vault remember who patients are whose notes are kept, and forget those who leave."""
        leaving = batch.facts.filter(pc.equal(batch.facts["action"], Action.WITHDRAW.value))
        for space, patient in zip(
            pc.fill_null(leaving["patient_namespace"], "patient").to_pylist(),
            leaving["patient"].to_pylist(),
            strict=True,
        ):
            if patient:
                who = patient.strip()
                self._leaving.add((space, who))
                self._vault.forget([who], namespace=space)
                self._identities.pop((space, who), None)
        if self._rules.notes is not TextPolicy.REDACTED:
            return
        by_space: dict[str, dict[str, list[Known]]] = {}
        for told in batch.told:
            space, who = told.namespace or "patient", told.patient.strip()
            if (space, who) not in self._leaving:
                by_space.setdefault(space, {}).setdefault(who, []).extend(told.known)
        for space, known in by_space.items():
            ids, _ = self.pseudonyms(space, list(known))
            left = self._load.has_left(np.array(ids, dtype=np.int64)).tolist()
            staying = {who: items for (who, items), gone in zip(known.items(), left, strict=True) if not gone}
            self._vault.remember(staying, namespace=space)
            for who in staying:
                self._identities.pop((space, who), None)

    def note_of(self, text: str, *, space: str, patient: str) -> str | None:
        """Return a note without identity, that of its patient as the vault knows it too; None if it may not
        be kept.
        """
        if len(self._identities) > _REMEMBERED:
            self._identities.clear()
        key = (space, patient)
        if key not in self._identities:
            (self._identities[key],) = self._vault.known_of([patient], namespace=space)
        try:
            return self._redact.redact_note(text, self._identities[key])
        except NotRedacted:
            return None

    def text_of(self, text: str, policy: TextPolicy) -> str | None:
        """Return what may be kept of a text, None if nothing may."""
        if policy is TextPolicy.NONE:
            return None
        if len(self._texts) > _REMEMBERED:
            self._texts.clear()
        if text not in self._texts:
            self._texts[text] = self._judged(text, policy)
        return self._texts[text]

    def _judged(self, text: str, policy: TextPolicy) -> str | None:
        if text.strip().lower() in WORDS:
            return text.strip()
        if policy is TextPolicy.WORDS:
            return None
        try:
            return self._redact.redact(text)
        except NotRedacted:
            return None


class _Columns:
    """One batch of facts in columns, on its way into the stage."""

    def __init__(self, facts: pa.Table, owner: Harmonizer) -> None:
        facts = facts.combine_chunks()
        self._facts = facts
        self._owner = owner
        self._size = facts.num_rows
        self.notes: list[tuple[int, str, str, bool]] = []
        self.record: np.ndarray = facts["record"].to_numpy()
        self.good = np.ones(self._size, dtype=bool)
        self._action = self._words("action")
        self._kind = self._words("kind")
        status = _lower(facts["status"])
        self._retracts = (self._action == Action.RETRACT) | (status == ENTERED_IN_ERROR)
        self._withdraws = self._action == Action.WITHDRAW
        self._merges = self._action == Action.MERGE
        self._moves = self._action == Action.MOVE
        self._asserts = ~(self._retracts | self._withdraws | self._merges | self._moves)
        self._status = status
        self._patients()
        self._keys()
        self._dates()
        self._judge()

    def stage(self) -> None:
        """Put the records, and what the batch says about other records, into the load's stage."""
        load = self._owner._load
        self._stage_actions(load)
        there = np.flatnonzero(self.good & self._asserts)
        if len(there):
            self._stage_records(load, there)

    # who and when

    def _words(self, name: str) -> np.ndarray:
        found: np.ndarray = self._facts[name].to_numpy(zero_copy_only=False)
        return found

    def _drop(self, mask: np.ndarray, name: str, reason: str) -> None:
        mask = mask & self.good
        if mask.any():
            self.notes += [(record, name, reason, False) for record in self.record[mask].tolist()]
            self.good &= ~mask

    def _pseudonyms(self, name: str, spaces: pa.ChunkedArray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Person id and shift per fact; 0 where there is no patient."""
        facts = self._facts
        if spaces is None:
            spaces = pc.fill_null(facts["patient_namespace"], "patient")
        texts = pc.utf8_trim_whitespace(pc.fill_null(facts[name], ""))
        joined = _encoded(pc.binary_join_element_wise(spaces, texts, UNIT))
        names = joined.dictionary.to_pylist()
        ids, shifts = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
        by_space: dict[str, list[int]] = {}
        for place, text in enumerate(names):
            space, _, patient = text.partition(UNIT)
            if patient:
                by_space.setdefault(space, []).append(place)
        for space, places in by_space.items():
            patients = [names[place].partition(UNIT)[2] for place in places]
            ids[places], shifts[places] = self._owner.pseudonyms(space, patients)
        index = joined.indices.to_numpy()
        return ids[index], shifts[index]

    def _patients(self) -> None:
        self.person, self._shift = self._pseudonyms("patient")
        keyed_retraction = self._retracts & pc.is_valid(self._facts["key"]).to_numpy(zero_copy_only=False)
        self._drop((self.person == 0) & ~keyed_retraction, "patient", "missing-patient")
        self._drop(
            self._owner._load.has_left(self.person) & ~self._withdraws & ~self._merges, "patient", "withdrawn"
        )

    def _keys(self) -> None:
        """Names of records, the same whenever and wherever the source is read again."""
        facts, vault = self._facts, self._owner._vault
        key = pc.if_else(
            pc.equal(facts["kind"], Kind.VISIT.value),
            pc.coalesce(facts["encounter"], facts["key"]),
            facts["key"],
        )
        key = pc.if_else(
            pc.equal(facts["kind"], Kind.PERSON.value), pc.coalesce(facts["key"], pa.scalar("")), key
        )
        self._keyed = pc.is_valid(key).to_numpy(zero_copy_only=False)
        own = pc.binary_join_element_wise(
            pa.scalar(self._owner._sha256), pc.cast(facts["record"], pa.string()), RECORD
        )
        space = pc.fill_null(facts["patient_namespace"], "patient")
        person = pc.cast(pa.chunked_array([pa.array(self.person)]), pa.string())
        name = pc.binary_join_element_wise(
            person, facts["kind"], pc.if_else(pa.chunked_array([pa.array(self._keyed)]), "key", "file"),
            pc.coalesce(key, own), UNIT,
        )  # fmt: skip
        described = self._described()
        self.group = vault.record_ids(_bytes(name), label="group") ^ described
        salts, places = self._salts(facts["place"])
        self._base = self.group ^ salts[places]
        self._twice(self._base)
        self._key_id = self._named(space, facts["key"])
        self._things(space, key)
        self._base_key_id = self._key_id
        if self._owner._marks_parts:
            parts = pc.fill_null(pc.match_substring(facts["key"], PART_MARK), False)
            if (marked := parts.to_numpy(zero_copy_only=False)).any():
                wholes = pc.replace_substring_regex(facts["key"], rf"(?s){PART_MARK}.*$", "")
                self._base_key_id = np.where(marked, self._named(space, wholes), self._key_id)
        self._other_key_id = self._named(space, facts["other_key"])
        self._wholes()
        self._rank = (self._owner._rank + self.record) & (2**_RANK_BITS - 1)
        visit = pc.binary_join_element_wise(person, Kind.VISIT.value, "key", facts["encounter"], UNIT)
        self._visit = self._numbered(visit, "group")
        self._visit_thing = np.where(
            self._visit == 0, 0, self._named(space, facts["encounter"]) ^ self._kind_salt(Kind.VISIT)
        )
        # a visit is what others name: its place does not matter
        visits = self._kind == Kind.VISIT
        self._base = np.where(visits, self.group, self._base)

    def _things(self, space: pa.ChunkedArray, key: pa.ChunkedArray) -> None:
        """Names of what a fact is a version of, whoever's it is; a description of a person stands alone."""
        visits = pa.chunked_array([pa.array(self._kind == Kind.VISIT)])
        ids = np.where(
            self._kind == Kind.VISIT,
            self._named(space, pc.if_else(visits, key, pa.scalar(None, pa.string()))),
            self._key_id,
        )
        salts = np.empty(self._size, np.int64)
        for kind in set(self._kind.tolist()):
            salts[self._kind == kind] = self._kind_salt(kind)
        self._thing = np.where(self._kind == Kind.PERSON, self.group, ids ^ salts)

    def _kind_salt(self, kind: str) -> int:
        return int(self._owner._vault.record_ids([str(kind).encode()], label="kind")[0])

    def _wholes(self) -> None:
        """Names of what is told as a whole: a resource by its type, anything else by its key."""
        places = _encoded(self._facts["place"])
        words = pc.extract_regex(places.dictionary, r"^(?P<type>[A-Z][a-z][A-Za-z]*)")
        types = pc.fill_null(pc.struct_field(words, "type"), "").to_pylist()
        salts = self._owner._vault.record_ids([word.encode() for word in types], label="place")
        salt = salts[places.indices.to_numpy()]
        self._whole = np.where(self._kind == Kind.PERSON, 0, self._base_key_id ^ salt)

    def _named(self, spaces: pa.ChunkedArray, keys: pa.ChunkedArray) -> np.ndarray:
        """The numbers of keys, 0 where there is none."""
        return self._numbered(pc.binary_join_element_wise(spaces, keys, UNIT), "key")

    def _numbered(self, names: pa.ChunkedArray, label: str) -> np.ndarray:
        """The number of each name, each made once; 0 for null."""
        numbers = np.zeros(self._size, np.int64)
        if names.null_count == self._size:
            return numbers
        encoded = _encoded(names)
        made = self._owner._vault.record_ids(_bytes(encoded.dictionary), label=label)
        there = encoded.is_valid().to_numpy(zero_copy_only=False)
        numbers[there] = made[encoded.indices.drop_null().to_numpy()]
        return numbers

    def _described(self) -> np.ndarray:
        """A description of a person replaces only those that say as much: 0 to 15 by what it says."""
        facts = self._facts
        says = np.zeros(self._size, np.int64)
        for bit, name in enumerate(("birth", "sex", "race", "ethnicity")):
            says |= pc.is_valid(facts[name]).to_numpy(zero_copy_only=False).astype(np.int64) << bit
        return np.where(self._kind == Kind.PERSON, says, 0)

    def _salts(self, texts: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        encoded = _encoded(texts)
        names = [text.encode() for text in encoded.dictionary.to_pylist()]
        salts = self._owner._vault.record_ids(names, label="place")
        return salts, encoded.indices.to_numpy()

    def _twice(self, base: np.ndarray) -> None:
        """Facts of one record with one key and place get ids of their own, in their order."""
        mixed = base ^ (self.record * np.int64(0x9E3779B97F4A7C1))
        order = np.argsort(mixed, kind="stable")
        same = np.concatenate([[False], mixed[order][1:] == mixed[order][:-1]])
        if not same.any():
            return
        run = np.arange(len(order)) - np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        nth = np.empty(len(order), np.int64)
        nth[order] = run
        base ^= nth * np.int64(0x2545F4914F6CDD1) & np.int64(2**63 - 1)

    def _moment(self, name: str) -> np.ndarray:
        found: np.ndarray = pc.fill_null(self._facts[name].cast(pa.int64()), _NULL).to_numpy()
        return found

    def _dates(self) -> None:
        owner, facts = self._owner, self._facts
        start, end, version = self._moment("start"), self._moment("end"), self._moment("version")
        precision = self._words("precision")
        seconds = (precision == Precision.SECOND) | (
            (precision == None) & (start != _NULL) & (start % DAY_US != 0)  # noqa: E711 (elementwise)
        )
        offset = pc.fill_null(facts["utc_offset_min"], 0).to_numpy().astype(np.int64) * 60_000_000
        offset = np.where(seconds, offset, 0)
        self._has_start = start != _NULL
        local = np.where(self._has_start, start + offset, 0)
        day = local // DAY_US
        self._plausible = (day >= EARLIEST_DAY) & (day <= owner._latest_day)
        self._day = stored_days(np.where(self._plausible, day, 0), self._shift, owner._practice)
        shifted = owner._practice is DatePractice.SHIFTED
        self._stamp = (moment_at(self._day, local % DAY_US), seconds & shifted)
        far_end = np.where(end != _NULL, end + offset, local)
        end_day = far_end // DAY_US
        # a stay may end after today (a prescription, a plan); an end before its start is the start
        usable = (end != _NULL) & (end_day >= day) & (end_day <= owner._latest_day + 366 * 5)
        self._has_end = usable
        last = np.where(usable, end_day, np.where(self._plausible, day, 0))
        self._end_day = stored_days(last, self._shift, owner._practice)
        self._end_stamp = (moment_at(self._end_day, far_end % DAY_US), usable & seconds & shifted)
        self._version = (np.where(version != _NULL, version + self._shift * DAY_US, 0), version != _NULL)
        recorded = self._version[0]
        if not shifted:
            days = stored_days(recorded // DAY_US - self._shift, self._shift, owner._practice)
            recorded = days * DAY_US
        self._recorded = (recorded, version != _NULL)

    # what counts

    def _judge(self) -> None:
        asserts = self._asserts
        dated = np.isin(self._kind, [kind.value for kind in _DATED])
        self._drop(asserts & ~self._counting(), "status", "status")
        self._drop(asserts & dated & ~self._has_start, "start", "missing-date")
        self._drop(asserts & dated & ~self._plausible, "start", "implausible-date")
        linked = self._kind == Kind.LINK
        has_target = pc.is_valid(self._facts["other_key"]).to_numpy(zero_copy_only=False)
        self._drop(asserts & linked & ~has_target, "other_key", "missing-target")
        self._births()
        if self._owner._rules.notes is not TextPolicy.REDACTED:
            self._drop(asserts & (self._kind == Kind.NOTE), "text", "text-withheld")
        else:
            self._notes_text()
        self._values_text()
        self._owner._load.unkeyed |= bool((self.good & asserts & ~self._keyed).any())

    def _counting(self) -> np.ndarray:
        """Which facts' kind, state and intent give records."""
        intents = np.full(self._size, None, dtype=object)
        details = self._facts["details"]
        if details.null_count < self._size:
            found = pc.map_lookup(details.combine_chunks(), "intent", "first")
            intents = _lower(found)
        seen: dict[tuple[str, str | None, str | None], bool] = {}
        counts = np.empty(self._size, dtype=bool)
        rules = self._owner._rules
        for place, what in enumerate(zip(self._kind, self._status, intents, strict=True)):
            if what not in seen:
                seen[what] = rules.counts(*what)
            counts[place] = seen[what]
        return counts

    def _births(self) -> None:
        facts, owner = self._facts, self._owner
        days = pc.fill_null(facts["birth"].cast(pa.int32()).cast(pa.int64()), _NULL).to_numpy()
        known = days != _NULL
        plausible = (
            known & (days <= owner._latest_day) & (days >= owner._latest_day - 366 * OLDEST_AGE_ON_RECORD)
        )
        wrong = known & ~plausible & self.good & (self._kind == Kind.PERSON)
        self.notes += [
            (record, "birth", "implausible-birth", False) for record in self.record[wrong].tolist()
        ]
        days = np.where(plausible, days, 0)
        yearly = self._words("precision") == Precision.YEAR
        moved = stored_days(days, self._shift, owner._practice)
        self._born = (year_of(np.where(yearly, days, moved)), plausible)

    def _notes_text(self) -> None:
        notes = np.flatnonzero(self.good & self._asserts & (self._kind == Kind.NOTE))
        chosen = self._facts.select(["text", "patient", "patient_namespace"]).take(pa.array(notes))
        kept = {
            place: self._owner.note_of(
                row["text"], space=row["patient_namespace"] or "patient", patient=row["patient"].strip()
            )
            for place, row in zip(notes.tolist(), chosen.to_pylist(), strict=True)
            if row["text"]
        }
        lost = np.zeros(self._size, dtype=bool)
        lost[[place for place in notes.tolist() if kept.get(place) is None]] = True
        self._drop(lost, "text", "text-withheld")
        self._note_text = pa.array([kept.get(place) for place in range(self._size)], pa.string())

    _note_text: pa.Array | None = None

    def _values_text(self) -> None:
        encoded = _encoded(self._facts["value_text"])
        texts = encoded.dictionary.to_pylist()
        policy = self._owner._rules.values
        kept = [self._owner.text_of(text, policy) if text is not None else None for text in texts]
        words = [WORDS.get((text or "").strip().lower(), 0) or None for text in texts]
        index = encoded.indices
        self._value_text = pa.array(kept, pa.string()).take(index)
        self._value_word = pa.array(words, pa.int64()).take(index)
        self._withheld = (
            pc.is_valid(encoded).to_numpy(zero_copy_only=False)
            & pc.is_null(self._value_text).to_numpy(zero_copy_only=False)
            # beside a coded value the words only say it again
            & (pc.fill_null(pc.list_value_length(self._facts["value_codes"]), 0).to_numpy() == 0)
        )  # fmt: skip
        lost = self._withheld & self.good & self._asserts
        self.notes += [(record, "value", "text-withheld", False) for record in self.record[lost].tolist()]

    def _uids(self, name: str) -> pa.Array:
        """The UIDs of images as the vault has them: readers that know the vault give those themselves."""
        images = self._kind == Kind.IMAGE
        if not images.any():
            return pa.nulls(self._size, pa.string())
        details = self._facts["details"].combine_chunks()
        ready = pc.map_lookup(details, f"image_{name}", "first")
        raw = pc.map_lookup(details, name, "first").to_pylist()
        vault = self._owner._vault
        made = [
            vault.dicom_uid(uid.removeprefix("urn:oid:")) if uid and image else None
            for uid, image in zip(raw, images, strict=True)
        ]
        return pc.coalesce(ready, pa.array(made, pa.string()))

    # into the stage

    def _stage_actions(self, load: FactLoad) -> None:
        good = self.good
        versioned = self._asserts & self._keyed & (self.person != 0)
        versioned &= ~load.has_left(self.person)
        cursor = load.cursor
        groups = np.flatnonzero(versioned)
        _insert(
            cursor,
            "stage_group",
            {
                "group_id": self.group[groups],
                "key_id": self._key_id[groups],
                "base_key_id": self._base_key_id[groups],
                "thing_id": self._thing[groups],
                "whole_id": self._whole[groups],
                "person_id": self.person[groups],
                "version": _stamps(self._version, groups),
                "rank": self._rank[groups],
                "visit_id": self._with_visit(groups),
                "partial": self._partial().take(pa.array(groups)),
            },
            distinct=True,
        )
        # also what another version replaces: an age that was capped once stays so
        seen = self._has_start & self._plausible & (self.person != 0)
        told = np.flatnonzero(seen & (versioned | (good & self._asserts)))
        _insert(
            cursor,
            "stage_last_year",
            {"person_id": self.person[told], "year": year_of(self._day[told])},
            distinct=True,
        )
        gone = np.flatnonzero(
            good & self._retracts & pc.is_valid(self._facts["key"]).to_numpy(zero_copy_only=False)
        )
        known = self.person[gone] != 0
        _insert(
            cursor,
            "stage_retraction",
            {
                "key_id": self._key_id[gone],
                "person_id": pa.array(self.person[gone], mask=~known),
                "version": _stamps((self._version[0], self._version[1] & (self.person != 0)), gone),
                "visit_id": self._with_visit(gone),
            },
        )
        left = np.flatnonzero(good & self._withdraws)
        _insert(cursor, "stage_withdrawn", {"person_id": self.person[left]})
        if (good & self._merges).any():
            self._stage_merges(load)
        if (good & self._moves).any():
            self._stage_moves(load)

    def _with_visit(self, there: np.ndarray) -> pa.Array:
        """The visits that records name which move with one."""
        of_visits = np.isin(self._kind, _OF_VISITS) & (self._visit != 0)
        return pa.array(self._visit[there], mask=~of_visits[there])

    def _partial(self) -> pa.Array:
        """1 and 2 of visits whose start is not said (node.omop.fact_ends), null of everything else."""
        details = self._facts["details"]
        if not (self._kind == Kind.VISIT).any() or details.null_count == self._size:
            return pa.nulls(self._size, pa.int8())
        said = pc.map_lookup(details.combine_chunks(), START, "first")
        found = pc.index_in(said, pa.array([START_UNSAID, OPEN_AGAIN]))
        return pc.add(pc.if_else(pa.array(self._kind == Kind.VISIT), found, None), 1).cast(pa.int8())

    def _others(self) -> tuple[np.ndarray, np.ndarray]:
        """The other patient of merges and moves, and their shift."""
        spaces = pc.fill_null(self._facts["patient_namespace"], "patient")
        details = self._facts["details"]
        if details.null_count < self._size:  # the other number may be of another authority
            other = pc.map_lookup(details.combine_chunks(), OTHER_NAMESPACE, "first")
            spaces = pc.coalesce(pa.chunked_array([other]), spaces)
        return self._pseudonyms("other_patient", spaces)

    def _days(self, shift: np.ndarray) -> np.ndarray:
        """From the patients' own shifts to others'."""
        return shift - self._shift if self._owner._practice is DatePractice.SHIFTED else np.zeros_like(shift)

    def _stage_merges(self, load: FactLoad) -> None:
        into, shift = self._others()
        self._drop(self._merges & (into == 0), "other_patient", "missing-target")
        there = np.flatnonzero(self.good & self._merges)
        days = self._days(shift)
        _insert(
            load.cursor,
            "stage_alias",
            {
                "person_id": self.person[there],
                "into_person_id": into[there],
                "days": days[there],
                "version": _stamps(self._version, there),
                "rank": self._rank[there],
            },
        )

    def _stage_moves(self, load: FactLoad) -> None:
        into, shift = self._others()
        person = pc.cast(pa.chunked_array([pa.array(into)]), pa.string())
        name = pc.binary_join_element_wise(person, Kind.VISIT.value, "key", self._facts["other_key"], UNIT)
        visit = self._numbered(name, "group")
        self._drop(
            self._moves & ((into == 0) | (visit == 0) | (self._visit == 0)), "other_key", "missing-target"
        )
        there = np.flatnonzero(self.good & self._moves)
        _insert(
            load.cursor,
            "stage_visit_move",
            {
                "visit_id": self._visit[there],
                "person_id": self.person[there],
                "into_visit_id": visit[there],
                "into_person_id": into[there],
                "days": self._days(shift)[there],
                "version": _stamps(self._version, there),
                "rank": self._rank[there],
            },
        )

    def _stage_records(self, load: FactLoad, there: np.ndarray) -> None:
        facts = self._facts
        take = pa.array(there)
        choices, choice = self._choices(facts["codes"].combine_chunks(), there, words=True)
        self._owner.words.add(facts, there, choices, choice, self.person[there])
        values, value = self._choices(facts["value_codes"].combine_chunks(), there)
        routes, route = self._coding("route", there)
        races, race = self._coding("race", there)
        ethnicities, ethnicity = self._coding("ethnicity", there)
        columns: dict[str, pa.Array | np.ndarray] = {
            name: facts[name].combine_chunks().take(take)
            for name in (
                "place", "kind", "type_concept_id", "value_number", "value_operator", "unit", "range_low",
                "range_high", "quantity", "days_supply", "refills", "dose", "sex", "charged", "paid",
                "currency", "precision", "utc_offset_min",
            )
        }  # fmt: skip
        # what a result says besides its value no table has, and a map costs more than all other columns
        unpaid = pc.and_(pc.is_null(facts["charged"]), pc.is_null(facts["paid"])).to_numpy()
        spoken = pa.array(there, mask=((self._kind == Kind.MEASUREMENT) & unpaid)[there])
        columns["details"] = facts["details"].combine_chunks().take(spoken)
        columns |= {
            "record": self.record[there],
            "person_id": self.person[there],
            "group_id": pa.array(self.group[there], mask=~self._keyed[there]),
            "base_id": self._base[there],
            "key_id": pa.array(self._key_id[there], mask=~self._keyed[there]),
            "other_key_id": pa.array(
                self._other_key_id[there],
                mask=pc.is_null(facts["other_key"]).to_numpy(zero_copy_only=False)[there],
            ),
            "rank": self._rank[there],
            "version": _stamps(self._version, there),
            "recorded_at": _stamps(self._recorded, there),
            "day": _day32(self._day[there]),
            "stamp": _stamps(self._stamp, there),
            "end_day": pa.array(self._end_day[there].astype(np.int32), mask=~self._has_end[there]).cast(
                pa.date32()
            ),
            "end_stamp": _stamps(self._end_stamp, there),
            "visit_id": pa.array(self._visit[there], mask=self._visit[there] == 0),
            "born": pa.array(self._born[0][there], mask=~self._born[1][there]),
            "value_text": self._value_text.take(take),
            "value_word": self._value_word.take(take),
            "withheld": self._withheld[there],
            "note_text": (
                self._note_text.take(take)
                if self._note_text is not None
                else pa.nulls(len(there), pa.string())
            ),
            "choice": choice,
            "value_choice": value,
            "image_study_uid": self._uids("study_uid").take(take),
            "image_series_uid": self._uids("series_uid").take(take),
            "route_choice": route,
            "race_choice": race,
            "ethnicity_choice": ethnicity,
        }
        tables = {
            "fact": pa.table(columns),
            "choices": cdm_areas.choices_table(choices),
            "value_choices": cdm_areas.firsts_table(values),
            "route_choices": cdm_areas.firsts_table(routes),
            "race_choices": cdm_areas.firsts_table(races),
            "ethnicity_choices": cdm_areas.firsts_table(ethnicities),
        }
        cursor = load.cursor
        _insert(
            cursor,
            "stage_visit",
            {"visit_id": columns["visit_id"], "thing_id": self._visit_thing[there]},
            distinct=True,
        )
        for name, table in tables.items():
            cursor.register(name, table)
        try:
            cursor.register("conversions", self._conversions(load))
            cdm_areas.stage(cursor, year_only=self._owner._practice is DatePractice.YEAR_ONLY)
        finally:
            for name in (*tables, "conversions"):
                cursor.unregister(name)

    def _choices(
        self, codes: pa.Array, there: np.ndarray, *, words: bool = False
    ) -> tuple[list[Choice], np.ndarray]:
        """The distinct codings of the facts as choices, and each fact's place among them."""
        codes = codes.take(pa.array(there))
        if codes.null_count == len(codes) and not words:
            return self._owner._concepts.choices([""]), np.zeros(len(there), np.int32)
        flat = codes.flatten()
        pairs = pc.binary_join_element_wise(
            pc.fill_null(flat.field("system"), ""), pc.fill_null(flat.field("code"), ""), UNIT
        )
        lengths = pc.fill_null(pc.list_value_length(codes), 0).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        texts = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), pairs), RECORD)
        return self._chosen(instead_of_codes(texts, self._facts, there) if words else texts)

    def _coding(self, name: str, there: np.ndarray) -> tuple[list[Choice], np.ndarray]:
        column = self._facts[name].combine_chunks().take(pa.array(there))
        if column.null_count == len(column):
            return self._owner._concepts.choices([""]), np.zeros(len(there), np.int32)
        texts = pc.binary_join_element_wise(
            pc.fill_null(column.field("system"), ""), pc.fill_null(column.field("code"), ""), UNIT
        )
        return self._chosen(pc.if_else(column.is_valid(), texts, ""))

    def _chosen(self, texts: pa.Array) -> tuple[list[Choice], np.ndarray]:
        encoded = texts.dictionary_encode()
        return self._owner._concepts.choices(encoded.dictionary.to_pylist()), encoded.indices.to_numpy()

    def _conversions(self, load: FactLoad) -> pa.Table:
        """How each (concept, unit) of the batch is kept."""
        pairs = load.cursor.execute(
            "SELECT DISTINCT c.concept_id, f.unit FROM fact f JOIN choices c USING (choice)"
            " WHERE f.unit IS NOT NULL"
        ).fetchall()
        self._learn_units(load, {unit for _, unit in pairs})
        found = [conversion(concept, unit, concepts=self._owner._units) for concept, unit in pairs]
        return pa.table(
            {
                "concept_id": pa.array([concept for concept, _ in pairs], pa.int64()),
                "unit": pa.array([unit for _, unit in pairs], pa.string()),
                "unit_concept_id": pa.array([one.concept_id for one in found], pa.int64()),
                "factor": pa.array([one.factor for one in found], pa.float64()),
                "shift": pa.array([one.offset for one in found], pa.float64()),
                "converted": pa.array([one.changes for one in found], pa.bool_()),
            }
        )

    def _learn_units(self, load: FactLoad, texts: set[str]) -> None:
        from node.omop.units import canonical

        known = self._owner._units
        wanted = {text.strip() for text in texts} | {ucum_of(text) for text in texts}
        if not known:
            wanted |= {kept.unit.ucum for kept in canonical().values()}
        fresh = sorted(wanted - known.keys())
        if not fresh:
            return
        load.cursor.register("wanted", pa.table({"code": pa.array(fresh, pa.string())}))
        rows = load.cursor.execute(
            "SELECT code, min(concept_id) FROM wanted JOIN concept ON vocabulary_id = 'UCUM'"
            " AND concept_code = code AND invalid_reason IS NULL GROUP BY code"
        ).fetchall()
        load.cursor.unregister("wanted")
        known.update(dict.fromkeys(fresh, 0))
        known.update(rows)


def _lower(texts: pa.ChunkedArray | pa.Array) -> np.ndarray:
    found: np.ndarray = pc.utf8_lower(texts).to_numpy(zero_copy_only=False)
    return found


def _encoded(texts: pa.ChunkedArray) -> pa.DictionaryArray:
    found = texts.combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # of no chunk, or of more than one array holds
        found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], texts.type)
    return found.dictionary_encode()


def _bytes(texts: pa.ChunkedArray | pa.Array) -> list[bytes]:
    found: list[bytes] = texts.cast(pa.binary()).to_pylist()
    return found


def _day32(days: np.ndarray) -> pa.Array:
    return pa.array(days.astype(np.int32)).cast(pa.date32())


def _stamps(moments: tuple[np.ndarray, np.ndarray], there: np.ndarray) -> pa.Array:
    return pa.array(moments[0][there], mask=~moments[1][there]).cast(pa.timestamp("us"))


def _insert(cursor: object, table: str, columns: dict[str, object], *, distinct: bool = False) -> None:
    made = pa.table(columns)
    if not made.num_rows:
        return
    cursor.register("incoming", made)  # type: ignore[attr-defined]
    word = "DISTINCT " if distinct else ""
    cursor.execute(f"INSERT INTO {table} BY NAME SELECT {word}* FROM incoming")  # type: ignore[attr-defined]  # noqa: S608
    cursor.unregister("incoming")  # type: ignore[attr-defined]
