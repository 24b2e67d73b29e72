"""What may be kept of the texts of facts, and what the vault is to know of patients whose notes are kept."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deid.errors import NotRedacted
from deid.spans import Known
from deid.text import Redactor
from deid.vault import Vault
from node.ingest.fact_columns import Columns, encoded
from node.ingest.fact_rules import WORDS, FactRules, TextPolicy
from node.ingest.facts import Action, FactBatch, Kind
from node.omop.fact_loading import FactLoad

_REMEMBERED = 100_000  # texts: some 20 MB


class Texts:
    """Judges the texts of one source; what it judged lately it remembers."""

    def __init__(self, load: FactLoad, vault: Vault, *, rules: FactRules, redact: Redactor) -> None:
        self._load = load
        self._vault = vault
        self._rules = rules
        self._redact = redact
        self._identities: dict[tuple[str, str], tuple[Known, ...]] = {}
        self._leaving: set[tuple[str, str]] = set()
        self._texts: dict[str, str | None] = {}

    def learn(self, batch: FactBatch) -> None:
        """Have the vault remember who patients are whose texts are kept, and forget those who leave."""
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
        if TextPolicy.REDACTED not in (self._rules.notes, self._rules.values):
            return
        by_space: dict[str, dict[str, list[Known]]] = {}
        for told in batch.told:
            space, who = told.namespace or "patient", told.patient.strip()
            if (space, who) not in self._leaving:
                by_space.setdefault(space, {}).setdefault(who, []).extend(told.known)
        for space, known in by_space.items():
            ids = self._vault.pseudonyms(list(known), namespace=space).ids
            left = self._load.has_left(ids).tolist()
            staying = {who: items for (who, items), gone in zip(known.items(), left, strict=True) if not gone}
            self._vault.remember(staying, namespace=space)
            for who in staying:
                self._identities.pop((space, who), None)

    def notes(self, columns: Columns) -> pa.Array:
        """Return what may be kept of the notes; turn away notes of which nothing may."""
        wanted = columns.asserts & (columns.kind == Kind.NOTE)
        if self._rules.notes is not TextPolicy.REDACTED:
            columns.drop(wanted, "text", "text-withheld")
            return pa.nulls(columns.size, pa.string())
        notes = np.flatnonzero(columns.good & wanted)
        chosen = columns.facts.select(["text", "patient", "patient_namespace"]).take(pa.array(notes))
        kept = {
            place: self._note(
                row["text"], space=row["patient_namespace"] or "patient", patient=row["patient"].strip()
            )
            for place, row in zip(notes.tolist(), chosen.to_pylist(), strict=True)
            if row["text"]
        }
        lost = np.zeros(columns.size, dtype=bool)
        lost[[place for place in notes.tolist() if kept.get(place) is None]] = True
        columns.drop(lost, "text", "text-withheld")
        return pa.array([kept.get(place) for place in range(columns.size)], pa.string())

    def values(self, columns: Columns) -> tuple[pa.Array, pa.Array, np.ndarray]:
        """Return results in words as they may be kept, the concepts of known words, and what was withheld."""
        found = encoded(columns.facts["value_text"])
        texts = found.dictionary.to_pylist()
        kept = [self._text(text) if text is not None else None for text in texts]
        words = [WORDS.get((text or "").strip().lower(), 0) or None for text in texts]
        value_text = pa.array(kept, pa.string()).take(found.indices)
        if self._rules.values is TextPolicy.REDACTED:
            value_text = self._without_known(columns, value_text)
        withheld = (
            pc.is_valid(found).to_numpy(zero_copy_only=False)
            & pc.is_null(value_text).to_numpy(zero_copy_only=False)
            # beside a coded value the words only say it again
            & (pc.fill_null(pc.list_value_length(columns.facts["value_codes"]), 0).to_numpy() == 0)
        )  # fmt: skip
        lost = withheld & columns.good & columns.asserts
        columns.notes += [
            (record, "value", "text-withheld", False) for record in columns.record[lost].tolist()
        ]
        return value_text, pa.array(words, pa.int64()).take(found.indices), withheld

    def _without_known(self, columns: Columns, kept: pa.Array) -> pa.Array:
        """Return the texts without what the vault knows of each one's patient, which few of them hold."""
        rows = np.flatnonzero(columns.asserts & pc.is_valid(kept).to_numpy(zero_copy_only=False))
        told = columns.facts.select(["value_text", "patient", "patient_namespace"]).take(pa.array(rows))
        found = kept.to_pylist()
        for place, row in zip(rows.tolist(), told.to_pylist(), strict=True):
            if row["patient"] is None or row["value_text"].strip().lower() in WORDS:
                continue
            known = self._known_of(row["patient_namespace"] or "patient", row["patient"].strip())
            try:
                if self._redact.holds(row["value_text"], known):
                    found[place] = self._redact.redact(row["value_text"], known)
            except NotRedacted:
                found[place] = None
        return pa.array(found, pa.string())

    def _note(self, text: str, *, space: str, patient: str) -> str | None:
        """Return a note without identity, that of its patient as the vault knows it too; None if it may not
        be kept.
        """
        try:
            return self._redact.redact_note(text, self._known_of(space, patient))
        except NotRedacted:
            return None

    def _known_of(self, space: str, patient: str) -> tuple[Known, ...]:
        if len(self._identities) > _REMEMBERED:
            self._identities.clear()
        key = (space, patient)
        if key not in self._identities:
            (self._identities[key],) = self._vault.known_of([patient], namespace=space)
        return self._identities[key]

    def _text(self, text: str) -> str | None:
        """Return what may be kept of a text, None if nothing may."""
        if self._rules.values is TextPolicy.NONE:
            return None
        if len(self._texts) > _REMEMBERED:
            self._texts.clear()
        if text not in self._texts:
            self._texts[text] = self._judged(text)
        return self._texts[text]

    def _judged(self, text: str) -> str | None:
        if text.strip().lower() in WORDS:
            return text.strip()
        if self._rules.values is TextPolicy.WORDS:
            return None
        try:
            return self._redact.redact(text)
        except NotRedacted:
            return None
