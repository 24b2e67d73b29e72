"""Genotypes of this node's patients, in Parquet beside the CDM. They never leave the node.

    genomes/<name>.parquet    0600: one row per variant, with the columns of
                              node.ingest.readers.variant_batches, then
        alleles    two bytes a person: 0 the reference, 1 the first alternate, ..., -1 not called, -2 no copy
        phased     one bit a person
    and in the file's metadata, `persons` (whose columns these are, in order) and `about` (counts, build).

`name` is a digest of the file and of who its samples are. Neither sample ids nor anything of the header is
kept. No question, statistic or training of this package reads these files: scores do, and give
measurements.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deid.vault import Vault
from node.ingest.delimited import sha256_of
from node.ingest.readers.variant_batches import ABSENT, MISSING, VARIANTS, VariantBatch
from node.ingest.readers.vcf import VariantFile

READER_VERSION = "1"
STORED = pa.schema([*VARIANTS, pa.field("alleles", pa.binary()), pa.field("phased", pa.binary())])


@dataclass(frozen=True, slots=True)
class GenomeLoad:
    """What became of one file: records = stored + turned away, always."""

    name: str
    samples: int
    persons: int
    build: str | None
    records: int = 0
    stored: int = 0
    turned_away: dict[str, int] | None = None
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Genotypes:
    """Some variants of a load. `alleles` is [variant, person, copy]."""

    variants: pa.Table
    persons: NDArray[np.int64]
    alleles: NDArray[np.int8]
    phased: NDArray[np.bool_]

    def written(self, variant: int, person: int) -> str:
        """Return a genotype as VCF writes it: "0|1", "1/1", "./.", "1"."""
        copies = [allele for allele in self.alleles[variant, person].tolist() if allele != ABSENT]
        mark = "|" if self.phased[variant, person] else "/"
        return mark.join(str(allele) if allele >= 0 else "." for allele in copies)

    def copies(self, variant: int, allele: int) -> NDArray[np.float64]:
        """Return how many copies of an allele each person has; nan where one was not called."""
        calls = self.alleles[variant]
        found: NDArray[np.float64] = (calls == allele).sum(axis=1).astype(np.float64)
        found[(calls == MISSING).any(axis=1)] = np.nan
        return found


class GenomeStore:
    """The folder of genotypes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(
        self,
        path: Path,
        vault: Vault,
        *,
        namespace: str,
        patients: Mapping[str, str] | None = None,
        without: Collection[int] = (),
        build: str | None = None,
    ) -> GenomeLoad:
        """Take in a VCF or BCF.

        Guarantee: as a whole or not at all; the same file for the same patients is taken in once.

        Args:
            namespace: whose ids the patients' are ("mrn").
            patients: sample id -> patient id; None: a sample's id is the patient's. Samples that it does not
                name are left out, and of two samples of one patient the later.
            without: person ids that may not be stored (withdrawn).
            build: GRCh37 or GRCh38, for files whose header does not say.
        Raises: UnreadableSource.
        """
        opened = VariantFile(path)
        chosen = [
            (place, sample if patients is None else patients[sample])
            for place, sample in enumerate(opened.samples)
            if patients is None or sample in patients
        ]
        ids = vault.pseudonyms([patient for _, patient in chosen], namespace=namespace).ids.tolist()
        kept: dict[int, int] = {}
        for (place, _), person in zip(chosen, ids, strict=True):
            if person not in without:
                kept.setdefault(person, place)
        name = _name(sha256_of(path), list(kept.items()))
        if (self._folder / f"{name}.parquet").exists():
            return replace(self.about(name), unchanged=True)
        load = GenomeLoad(name, len(opened.samples), len(kept), opened.build or build)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._replacing(name) as part:
            return _write(part, opened, load, kept)

    def names(self) -> list[str]:
        """Return the names of all loads."""
        return sorted(path.stem for path in self._folder.glob("[!.]*.parquet"))

    def about(self, name: str) -> GenomeLoad:
        """Return what a load brought in."""
        metadata = pq.read_metadata(self._path(name)).metadata
        return GenomeLoad(**json.loads(metadata[b"about"]))

    def variants(self, name: str) -> pa.Table:
        """Return a load's variants, without genotypes."""
        return pq.read_table(self._path(name), columns=VARIANTS.names)

    def genotypes(self, name: str) -> Iterator[Genotypes]:
        """Yield a load's variants and everybody's genotypes, in parts that fit into memory."""
        with pq.ParquetFile(self._path(name)) as file:
            persons = _persons(file)
            for group in range(file.num_row_groups):
                yield _unpacked(file.read_row_group(group), persons)

    def forget(self, person_id: int) -> int:
        """Remove everything of a person (they withdrew); return from how many files."""
        found = 0
        for name in self.names():
            with pq.ParquetFile(self._path(name)) as file:
                persons = _persons(file)
            if person_id in persons:
                self._rewrite(name, persons != person_id, persons)
                found += 1
        return found

    def merge(self, person_id: int, into: int) -> int:
        """Give a person's genotypes to somebody else, who they turned out to be; return in how many files.

        Guarantee: idempotent; of a load that has both, those of `into` stay, and the other ones are removed.
        """
        found = 0
        for name in self.names():
            with pq.ParquetFile(self._path(name)) as file:
                persons = _persons(file)
            if person_id in persons and person_id != into:
                stays = persons != person_id if into in persons else np.ones(len(persons), dtype=bool)
                self._rewrite(name, stays, np.where(persons == person_id, into, persons))
                found += 1
        return found

    def _rewrite(self, name: str, stays: NDArray[np.bool_], persons: NDArray[np.int64]) -> None:
        """Write a load anew, with the columns that stay, whose they are by `persons`."""
        about = replace(self.about(name), persons=int(stays.sum()))
        with self._replacing(name) as part, _writer(part) as writer:
            for some in self.genotypes(name):
                writer.write_table(_packed(some.variants, some.alleles[:, stays], some.phased[:, stays]))
            _describe(writer, about, some_persons=persons[stays])

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"

    def _replacing(self, name: str) -> _Replacing:
        return _Replacing(self._path(name))


class _Replacing:
    """A file that takes the place of another when the block ends well, and else leaves nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")

    def __enter__(self) -> Path:
        self._part.unlink(missing_ok=True)
        os.close(os.open(self._part, os.O_CREAT | os.O_WRONLY, 0o600))
        return self._part

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._part.unlink(missing_ok=True)
            return
        _sync(self._part)
        os.replace(self._part, self._path)
        _sync(self._path.parent)


def _write(part: Path, opened: VariantFile, load: GenomeLoad, kept: Mapping[int, int]) -> GenomeLoad:
    places = np.array(list(kept.values()), dtype=np.int64)
    everyone = len(places) == len(opened.samples) and bool((places == np.arange(len(places))).all())
    away: Counter[str] = Counter()
    records = stored = 0
    with _writer(part) as writer:
        for batch in opened.batches():
            records += batch.records
            stored += batch.variants.num_rows
            away.update(turned.reason for turned in batch.turned_away)
            if batch.variants.num_rows:
                writer.write_table(_kept(batch, None if everyone else places))
        load = replace(load, records=records, stored=stored, turned_away=dict(away))
        _describe(writer, load, some_persons=np.array(list(kept), dtype=np.int64))
    return load


def _writer(part: Path) -> pq.ParquetWriter:
    plain = ["alleles", "phased"]  # blobs: a dictionary of them would hold each once more
    coded = [name for name in STORED.names if name not in plain]
    return pq.ParquetWriter(part, STORED, compression="zstd", use_dictionary=coded, write_statistics=coded)


def _describe(writer: pq.ParquetWriter, about: GenomeLoad, *, some_persons: NDArray[np.int64]) -> None:
    writer.add_key_value_metadata(
        {"about": json.dumps(asdict(about)), "persons": json.dumps(some_persons.tolist())}
    )


def _kept(batch: VariantBatch, places: NDArray[np.int64] | None) -> pa.Table:
    if places is None:
        return _packed(batch.variants, batch.alleles, batch.phased)
    return _packed(batch.variants, batch.alleles[:, places], batch.phased[:, places])


def _packed(variants: pa.Table, alleles: NDArray[np.int8], phased: NDArray[np.bool_]) -> pa.Table:
    rows = len(alleles)
    bits = np.packbits(phased, axis=1)
    blobs = [_blobs(np.ascontiguousarray(alleles).view(np.uint8).reshape(rows, -1)), _blobs(bits)]
    return pa.Table.from_arrays([*variants.columns, *blobs], schema=STORED)


def _blobs(rows: NDArray[np.uint8]) -> pa.Array:
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.shape[1])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.Array.from_buffers(pa.binary(), len(rows), buffers)


def _unpacked(rows: pa.Table, persons: NDArray[np.int64]) -> Genotypes:
    count = len(persons)
    alleles = np.frombuffer(b"".join(rows["alleles"].to_pylist()), dtype=np.int8)
    bits = np.frombuffer(b"".join(rows["phased"].to_pylist()), dtype=np.uint8)
    phased = np.unpackbits(bits.reshape(rows.num_rows, -1), axis=1, count=count).astype(np.bool_)
    return Genotypes(rows.select(VARIANTS.names), persons, alleles.reshape(rows.num_rows, count, 2), phased)


def _persons(file: pq.ParquetFile) -> NDArray[np.int64]:
    return np.array(json.loads(file.metadata.metadata[b"persons"]), dtype=np.int64)


def _name(sha256: str, kept: list[tuple[int, int]]) -> str:
    said = json.dumps([sha256, READER_VERSION, kept])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
