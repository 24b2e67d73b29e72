"""What a variant file gives, batch by batch, and which of its records are of no use here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from node.ingest.facts import TurnedAway

MISSING = -1  # the allele was not called
ABSENT = -2  # there is no second allele: one copy of the chromosome
MAX_ALLELE_BASES = 10_000  # longer ones are written out structural variants
MAX_ALLELES = 127  # what a byte counts
RSID = r"^rs[0-9]{1,12}$"  # other ids may be of a person
_ALLELE = re.compile(r"[ACGTN]+|\*")
VARIANTS = pa.schema(
    [
        pa.field("record", pa.int64(), nullable=False),  # number in the file, from 1
        pa.field("chromosome", pa.string(), nullable=False),  # without "chr": "1", "X", "MT"
        pa.field("position", pa.int32(), nullable=False),
        pa.field("rsid", pa.string()),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("alternates", pa.list_(pa.string()), nullable=False),
        pa.field("quality", pa.float32()),
        pa.field("filters", pa.string()),  # "PASS", the failed ones with ";" between, null: none applied
    ]
)


class DamagedRecord(ValueError):
    """A record is not VCF. `after` is the last one that is; what follows it cannot be trusted either."""

    def __init__(self, *, after: int) -> None:
        super().__init__(f"damaged after record {after}")
        self.after = after


@dataclass(frozen=True, slots=True)
class VariantBatch:
    """Consecutive records of a file. `alleles` is [variant, sample, copy]: 0 is the reference."""

    variants: pa.Table
    alleles: NDArray[np.int8]
    phased: NDArray[np.bool_]
    turned_away: list[TurnedAway] = field(default_factory=list)
    records: int = 0


def unusable(reference: str, alternates: Sequence[str]) -> str | None:
    """Return why alleles are not kept; None if they are."""
    if not all(map(_ALLELE.fullmatch, (reference, *alternates))):
        return "symbolic-allele"
    longest = max(map(len, (reference, *alternates)))
    return "too-long" if longest > MAX_ALLELE_BASES or len(alternates) >= MAX_ALLELES else None


def rsid_of(said: str | None) -> str | None:
    """Return an id if it is one of dbSNP."""
    return said if said is not None and re.fullmatch(RSID, said) else None


@lru_cache(maxsize=1 << 10)
def named(chromosome: str) -> str:
    """Return a chromosome's name as this package writes it.

    >>> named("chr1"), named("chrM"), named("X")
    ('1', 'MT', 'X')
    """
    short = chromosome.removeprefix("chr")
    return "MT" if short == "M" else short
