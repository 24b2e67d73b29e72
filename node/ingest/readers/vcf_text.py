"""VCF as text, a chunk of lines at a time, in columns: no object per variant.

The header is htslib's to read (node.ingest.readers.vcf); what is here are the lines below it, which have a
fixed form: as many columns as the header says, the fixed ones first, then one per sample. Where a line has
another form, the file is damaged.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from node.ingest.facts import TurnedAway
from node.ingest.readers import vcf_chunks
from node.ingest.readers.variant_batches import (
    MISSING,
    RSID,
    VARIANTS,
    DamagedRecord,
    VariantBatch,
    named,
    unusable,
)
from node.ingest.readers.vcf_genotypes import Bytes, Ints, NoGenotype, calls

_FIXED = 9  # CHROM POS ID REF ALT QUAL FILTER INFO FORMAT
_CHROM, _POS, _ID, _REF, _ALT, _QUAL, _FILTER, _INFO, _FORMAT = range(_FIXED)
_PAD = b".\t\t\t"  # what a sample says that says nothing; and no genotype ends with the text
_TAB, _LINE = b"\t\n"
_BASE = np.zeros(256, dtype=bool)
_BASE[list(b"ACGT")] = True
_LAST_POSITION = 2**31 - 1


def batches(path: Path, *, samples: int) -> Iterator[VariantBatch]:
    """Yield the variants below the header; memory is bounded by a chunk or a line, not by the file.

    Raises: DamagedRecord.
    """
    done = 0
    chunks = vcf_chunks.chunks(path)
    while True:
        try:
            text = next(chunks, None)
        except (OSError, EOFError, zlib.error, vcf_chunks.Endless):
            raise DamagedRecord(after=done) from None
        if text is None:
            return
        batch = _Lines(text, samples=samples, before=done).batch()
        done += batch.records
        yield batch


class _Lines:
    """A chunk, cut into fields: `starts` and `ends` are [line, column]."""

    def __init__(self, text: bytes, *, samples: int, before: int) -> None:
        self._before = before
        self._samples = samples
        self._nothing = len(text)
        self._signs: Bytes = np.frombuffer(text + _PAD, dtype=np.uint8)
        signs = self._signs[: len(text)]
        ends = np.flatnonzero((signs - np.uint8(_TAB)) < 2)  # a tab or the end of a line
        lines = signs[ends] == _LINE
        columns = _columns_of(samples, first=int(np.argmax(lines)) + 1)
        self._check_form(lines, columns)
        self.ends: Ints = ends.reshape(-1, columns)
        starts = np.empty_like(ends)
        starts[0] = 0
        starts[1:] = ends[:-1] + 1
        self.starts: Ints = starts.reshape(-1, columns)
        self._count = len(self.ends)
        self._reason = np.zeros(self._count, dtype=np.int64)
        self._reasons = [""]
        self._not_text()

    def _check_form(self, lines: NDArray[np.bool_], columns: int) -> None:
        whole = len(lines) - len(lines) % columns
        form = lines[:whole].reshape(-1, columns)
        good = form[:, -1] & (form.sum(axis=1) == 1)
        if whole != len(lines) or not good.all():
            first = int(np.argmin(good)) if not good.all() else len(good)
            raise DamagedRecord(after=self._before + first)

    def batch(self) -> VariantBatch:
        alternates = self._alleles_kept()
        alleles, phased = self._genotypes()
        beyond = alleles.max(axis=(1, 2), initial=MISSING) > alternates
        self._away(beyond, "no-such-allele")
        kept = self._reason == 0
        record = np.arange(self._before + 1, self._before + self._count + 1)
        away = np.flatnonzero(~kept)
        if len(away):
            alleles, phased = alleles[kept], phased[kept]
        return VariantBatch(
            self._table(record, kept),
            alleles,
            phased,
            [
                TurnedAway(number, "", self._reasons[why], True)
                for number, why in zip(record[away].tolist(), self._reason[away].tolist(), strict=True)
            ],
            self._count,
        )

    def _away(self, mask: NDArray[np.bool_], reason: str) -> None:
        """Note a reason for those that have none yet."""
        self._reason[mask & (self._reason == 0)] = self._number_of(reason)

    def _turn_away(self, line: int, reason: str) -> None:
        self._reason[line] = self._reason[line] or self._number_of(reason)

    def _number_of(self, reason: str) -> int:
        if reason not in self._reasons:
            self._reasons.append(reason)
        return self._reasons.index(reason)

    def _damaged(self, line: int) -> DamagedRecord:
        return DamagedRecord(after=self._before + line)

    def _said(self, line: int, column: int) -> bytes:
        return self._signs[self.starts[line, column] : self.ends[line, column]].tobytes()

    def _not_text(self) -> None:
        high = np.flatnonzero(self._signs > 127)
        if len(high) == 0:
            return
        line, column = np.divmod(np.searchsorted(self.ends.ravel(), high), self.ends.shape[1])
        for one in np.unique(line[column <= _FILTER]).tolist():
            try:
                self._signs[self.starts[one, _CHROM] : self.ends[one, _FILTER]].tobytes().decode()
            except UnicodeDecodeError:
                self._turn_away(one, "not-text")

    # the fixed columns

    def _is(self, column: int, text: bytes) -> NDArray[np.bool_]:
        """Where a column is one sign."""
        sign = self._signs[self.starts[:, column]] == text[0]
        found: NDArray[np.bool_] = sign & (self.ends[:, column] - self.starts[:, column] == 1)
        return found

    def _is_base(self, column: int) -> NDArray[np.bool_]:
        base = _BASE[self._signs[self.starts[:, column]]]
        found: NDArray[np.bool_] = base & (self.ends[:, column] - self.starts[:, column] == 1)
        return found

    def _alleles_kept(self) -> Ints:
        """Turn away alleles that are of no use; return how many alternates the others have."""
        count = np.ones(self._count, dtype=np.int64)
        empty = self.ends[:, _ALT] == self.starts[:, _ALT]
        self._away(self._is(_ALT, b".") | empty, "no-alternate")
        simple = self._is_base(_REF) & self._is_base(_ALT)
        for line in np.flatnonzero(~simple & (self._reason == 0)).tolist():
            alternates = self._said(line, _ALT).decode().split(",")
            reason = unusable(self._said(line, _REF).decode(), alternates)
            count[line] = len(alternates)
            if reason is not None:
                self._turn_away(line, reason)
        return count

    def _text(self, column: int, kept: NDArray[np.bool_]) -> pa.Array:
        starts, ends = self.starts[kept, column], self.ends[kept, column]
        offsets = np.zeros(len(starts) + 1, dtype=np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(self._signs[places])]
        return pa.Array.from_buffers(pa.string(), len(starts), buffers)

    def _table(self, record: Ints, kept: NDArray[np.bool_]) -> pa.Table:
        rsid = pa.nulls(int(kept.sum()), pa.string())
        if not self._is(_ID, b".").all():
            said = self._text(_ID, kept)
            rsid = pc.if_else(pc.match_substring_regex(said, RSID), said, pa.scalar(None, pa.string()))
        alternates = self._text(_ALT, kept)
        columns = [
            pa.array(record[kept]),
            _each(self._text(_CHROM, kept), named),
            self._positions(kept),
            rsid,
            self._text(_REF, kept),
            pc.split_pattern(alternates, ","),
            self._qualities(kept),
            _each(self._text(_FILTER, kept), lambda said: None if said in ("", ".") else said),
        ]
        return pa.Table.from_arrays(
            [column.cast(f.type) for column, f in zip(columns, VARIANTS, strict=True)], schema=VARIANTS
        )

    def _positions(self, kept: NDArray[np.bool_]) -> pa.Array:
        try:
            found = self._text(_POS, np.ones(self._count, dtype=bool)).cast(pa.int32())
        except pa.ArrowInvalid:
            said = [_position(self._said(line, _POS)) for line in range(self._count)]
            found = pa.array(said, pa.int32())
        wrong = np.asarray(pc.less(found, 0))
        if wrong.any():
            raise self._damaged(int(np.argmax(wrong)))
        return found.filter(pa.array(kept))

    def _qualities(self, kept: NDArray[np.bool_]) -> pa.Array:
        if self._is(_QUAL, b".").all():
            return pa.nulls(int(kept.sum()), pa.float32())
        texts = self._text(_QUAL, kept)
        texts = pc.if_else(pc.equal(texts, "."), pa.scalar(None, pa.string()), texts)
        try:
            return texts.cast(pa.float32())
        except pa.ArrowInvalid:
            return _each(texts, _number, pa.float32())

    # genotypes

    def _genotypes(self) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """Return [line, sample, copy] and whether phased, of every line; of those turned away nothing."""
        alleles = np.full((self._count, self._samples, 2), MISSING, dtype=np.int8)
        phased = np.zeros((self._count, self._samples), dtype=bool)
        if not self._samples:
            self._away(np.ones(self._count, dtype=bool), "no-genotype")
            return alleles, phased
        formats = self._text(_FORMAT, np.ones(self._count, dtype=bool)).dictionary_encode()
        said = formats.dictionary.cast(pa.binary()).to_pylist()
        places = np.array([_place_of_gt(text) for text in said], dtype=np.int64)
        place = places[formats.indices.to_numpy()]
        self._away(place < 0, "no-genotype")
        lines = np.flatnonzero(self._reason == 0)
        if len(lines) == 0:
            return alleles, phased
        starts, ends = self.starts[lines, _FIXED:], self.ends[lines, _FIXED:]
        if place[lines].any():
            starts, ends = self._at_place(starts, ends, place[lines])
        try:
            found, is_phased, many = calls(self._signs, starts, ends)
        except NoGenotype as error:
            raise self._damaged(int(lines[error.row])) from None
        for row in np.flatnonzero(many).tolist():
            self._turn_away(int(lines[row]), "ploidy")
        if len(lines) == self._count:
            return found, is_phased
        alleles[lines], phased[lines] = found, is_phased
        return alleles, phased

    def _at_place(self, starts: Ints, ends: Ints, place: Ints) -> tuple[Ints, Ints]:
        """Move to GT where other fields go before it, which VCF does not allow and some callers do."""
        starts, ends = starts.copy(), ends.copy()
        for row in np.flatnonzero(place).tolist():
            for column in range(starts.shape[1]):
                parts = self._signs[starts[row, column] : ends[row, column]].tobytes().split(b":")
                at = int(place[row])
                before = sum(len(part) + 1 for part in parts[:at])
                begin = starts[row, column] + before if at < len(parts) else self._nothing
                starts[row, column] = begin
                ends[row, column] = begin + (len(parts[at]) if at < len(parts) else 1)
        return starts, ends


def _columns_of(samples: int, *, first: int) -> int:
    """A file without samples has a FORMAT column or none: its first line says."""
    if samples:
        return _FIXED + samples
    return _FIXED if first == _FIXED else _FIXED - 1


def _each(texts: pa.Array, made: Callable[[str], object], kind: pa.DataType | None = None) -> pa.Array:
    """Apply a function once to each of the different texts."""
    coded = texts.dictionary_encode()
    found = pa.array([made(text) for text in coded.dictionary.to_pylist()], kind or pa.string())
    return found.take(coded.indices)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _position(text: bytes) -> int:
    """A position, or a number below 0."""
    found = int(text) if text.isdigit() and len(text) < 20 else -1
    return found if found <= _LAST_POSITION else -1


def _place_of_gt(said: bytes) -> int:
    names = said.split(b":")
    return names.index(b"GT") if b"GT" in names else -1
