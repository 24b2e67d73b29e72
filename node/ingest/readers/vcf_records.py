"""BCF, record by record through cyvcf2: binary, and with nothing that could be read in columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from node.ingest.facts import TurnedAway
from node.ingest.readers.variant_batches import (
    ABSENT,
    VARIANTS,
    DamagedRecord,
    VariantBatch,
    named,
    rsid_of,
    unusable,
)

BATCH_GENOTYPES = 2_000_000  # 4 MB of alleles, and some 40 MB on the way into columns
_LARGEST_POSITION = 2**31 - 1


def batches(file: Any, *, samples: int, batch_genotypes: int = BATCH_GENOTYPES) -> Iterator[VariantBatch]:
    """Yield the variants of an open `cyvcf2.VCF`; memory is bounded by `batch_genotypes`, not by the file.

    Raises: DamagedRecord.
    """
    at_once = max(1, batch_genotypes // max(1, samples))
    draft = _Draft(samples)
    lines = iter(file)
    while True:
        try:
            line = next(lines, None)
        except Exception:  # cyvcf2 raises plain ones
            raise DamagedRecord(after=draft.record) from None
        if line is None:
            break
        draft.add(line)
        if draft.records >= at_once:
            yield draft.take()
    if draft.records:
        yield draft.take()


class _Draft:
    def __init__(self, samples: int) -> None:
        self._samples = samples
        self.record = 0
        self._start()

    def _start(self) -> None:
        self.records = 0
        self._rows: list[tuple[Any, ...]] = []
        self._calls: list[NDArray[np.int16]] = []
        self._turned_away: list[TurnedAway] = []

    def add(self, line: Any) -> None:
        self.record += 1
        self.records += 1
        reason = self._one(line)
        if reason is not None:
            self._turned_away.append(TurnedAway(self.record, "", reason, True))

    def _one(self, line: Any) -> str | None:
        try:
            alternates = line.ALT
            if not alternates:
                return (
                    "no-alternate"  # nor, in a line cut short, a reference: cyvcf2 must not be asked for it
                )
            chromosome, reference = line.CHROM, line.REF
            rsid, filters = line.ID, line.FILTERS
        except UnicodeDecodeError:
            return "not-text"
        reason = unusable(reference, alternates)
        if reason is not None:
            return reason
        if not self._samples:
            return "no-genotype"
        try:
            calls = line.genotype.array()
        except Exception:  # cyvcf2 raises a plain one where there is no GT
            return "no-genotype"
        if not 0 <= line.POS <= _LARGEST_POSITION:
            raise DamagedRecord(after=self.record - 1)
        if calls.shape[1] != 3:
            if calls.shape[1] != 2:
                return "ploidy"
            calls = np.insert(calls, 1, ABSENT, axis=1)
        self._calls.append(calls)
        self._rows.append(
            (
                self.record,
                named(chromosome),
                line.POS,
                rsid_of(rsid),
                reference,
                alternates,
                line.QUAL,
                filters[0] if len(filters) == 1 else ";".join(filters) or None,
            )
        )
        return None

    def take(self) -> VariantBatch:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(VARIANTS)
        arrays = [pa.array(values, f.type) for values, f in zip(columns, VARIANTS, strict=True)]
        variants = pa.Table.from_arrays(arrays, schema=VARIANTS)
        calls = np.concatenate([np.empty((0, 3), np.int16), *self._calls]).reshape(
            len(self._calls), self._samples, 3
        )
        alternates = np.array([len(said) for said in columns[5]], dtype=np.int16)
        wrong = calls[:, :, :2].max(axis=(1, 2), initial=0) > alternates
        if wrong.any():
            for record in variants["record"].to_numpy()[wrong].tolist():
                self._turned_away.append(TurnedAway(record, "", "no-such-allele", True))
            variants, calls = variants.filter(pa.array(~wrong)), calls[~wrong]
        alleles = calls[:, :, :2].astype(np.int8)
        batch = VariantBatch(
            variants,
            alleles,
            calls[:, :, 2].astype(np.bool_) & (alleles[:, :, 1] != ABSENT),
            sorted(self._turned_away, key=lambda turned: turned.record),
            self.records,
        )
        self._start()
        return batch
