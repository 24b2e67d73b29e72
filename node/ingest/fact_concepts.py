"""What the codes and units of a batch of facts come to: the different ones, and each fact's place in them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from node.ingest.code_words import instead_of_codes
from node.ingest.fact_columns import Columns
from node.omop.concepts import RECORD, UNIT, Choice, Concepts
from node.omop.fact_loading import FactLoad
from node.omop.units import canonical, conversion, ucum_of

Chosen = tuple[list[Choice], np.ndarray]  # the different ones, and each fact's place among them


class FactConcepts:
    """Maps the codes and units of one source; units that were looked up are remembered."""

    def __init__(self, concepts: Concepts) -> None:
        self._concepts = concepts
        self._units: dict[str, int] = {}

    def choices(self, columns: Columns, name: str, there: np.ndarray, *, words: bool = False) -> Chosen:
        """Return what a column of codings comes to. words: a fact's words stand for codes that are not."""
        codes = columns.facts[name].combine_chunks().take(pa.array(there))
        if codes.null_count == len(codes) and not words:
            return self._none(there)
        flat = codes.flatten()
        pairs = pc.binary_join_element_wise(
            pc.fill_null(flat.field("system"), ""), pc.fill_null(flat.field("code"), ""), UNIT
        )
        lengths = pc.fill_null(pc.list_value_length(codes), 0).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        texts = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), pairs), RECORD)
        return self._chosen(instead_of_codes(texts, columns.facts, there) if words else texts)

    def coding(self, columns: Columns, name: str, there: np.ndarray) -> Chosen:
        """Return what a column of single codings comes to."""
        column = columns.facts[name].combine_chunks().take(pa.array(there))
        if column.null_count == len(column):
            return self._none(there)
        texts = pc.binary_join_element_wise(
            pc.fill_null(column.field("system"), ""), pc.fill_null(column.field("code"), ""), UNIT
        )
        return self._chosen(pc.if_else(column.is_valid(), texts, ""))

    def _none(self, there: np.ndarray) -> Chosen:
        return self._concepts.choices([""]), np.zeros(len(there), np.int32)

    def _chosen(self, texts: pa.Array) -> Chosen:
        found = texts.dictionary_encode()
        return self._concepts.choices(found.dictionary.to_pylist()), found.indices.to_numpy()

    def conversions(self, load: FactLoad) -> pa.Table:
        """Return how each (concept, unit) of the registered batch is kept."""
        pairs = load.cursor.execute(
            "SELECT DISTINCT c.concept_id, f.unit FROM"
            " (SELECT DISTINCT choice, unit FROM fact WHERE unit IS NOT NULL) f JOIN choices c USING (choice)"
        ).fetchall()
        self._learn_units(load, {unit for _, unit in pairs})
        found = [conversion(concept, unit, concepts=self._units) for concept, unit in pairs]
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
        known = self._units
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
