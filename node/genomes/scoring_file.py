"""Scoring files of the PGS Catalog: which alleles weigh how much, at which positions of which build."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from node.ingest.errors import UnreadableSource
from node.ingest.readers.variant_batches import named

BUILDS = {"grch37": "GRCh37", "hg19": "GRCh37", "grch38": "GRCh38", "hg38": "GRCh38"}
MAX_LINE_CHARS = 100_000
_ID = re.compile(r"PGS[0-9]{6}")
_BASES = re.compile(r"[ACGT]+")
_NOT_ADDITIVE = ("is_haplotype", "is_diplotype", "is_interaction", "is_dominant", "is_recessive")


@dataclass(frozen=True, slots=True)
class Weight:
    """What one copy of an allele adds to a score."""

    chromosome: str
    position: int
    effect: str
    other: str | None
    weight: float


@dataclass(frozen=True, slots=True)
class ScoringFile:
    """A score. `left_out` counts the lines that cannot be used, by reason."""

    pgs_id: str
    build: str | None
    weights: tuple[Weight, ...]
    left_out: dict[str, int]


def read_scoring_file(path: Path) -> ScoringFile:
    """Read a scoring file, plain or gzip, harmonised positions where it has them.

    Raises: UnreadableSource if it has no id (in header, column or file name) or none of the columns needed.
    """
    try:
        with _opened(path) as file:
            return _read(path, file)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error):
        raise UnreadableSource(path.name, "not a readable scoring file") from None


def _opened(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return cast(io.TextIOBase, gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _read(path: Path, file: io.TextIOBase) -> ScoringFile:
    said: dict[str, str] = {}
    line = file.readline(MAX_LINE_CHARS)
    while line.startswith("#"):
        name, _, value = line.strip().lstrip("#").partition("=")
        said[name.lower()] = value
        line = file.readline(MAX_LINE_CHARS)
    columns = line.strip().split("\t")
    harmonised = {"hm_chr", "hm_pos"} <= set(columns)
    positions = ("hm_chr", "hm_pos") if harmonised else ("chr_name", "chr_position")
    if not {*positions, "effect_allele", "effect_weight"} <= set(columns):
        raise UnreadableSource(path.name, "needs position, effect_allele and effect_weight")
    weights: list[Weight] = []
    left_out: Counter[str] = Counter()
    ids = {said["pgs_id"]} if "pgs_id" in said else set(_ID.findall(path.name))
    for row in csv.DictReader(file, fieldnames=columns, delimiter="\t"):
        found = _weight(row, *positions)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            weights.append(found)
    if len(ids) != 1 or not _ID.fullmatch(pgs_id := ids.pop()):
        raise UnreadableSource(path.name, "has no id of the PGS Catalog")
    build = said.get("hmpos_build" if harmonised else "genome_build", "")
    return ScoringFile(pgs_id, BUILDS.get(build.lower()), tuple(weights), dict(left_out))


def _weight(row: dict[str, str], chromosome: str, position: str) -> Weight | str:
    """Return a line's weight, or why there is none."""
    if any((row.get(name) or "").lower() == "true" for name in _NOT_ADDITIVE):
        return "not-additive"
    if row.get("effect_type") not in (None, "", "additive") or row.get("dosage_0_weight"):
        return "not-additive"
    if not row.get(chromosome) or not (row.get(position) or "").isdecimal():
        return "no-position"
    effect = (row.get("effect_allele") or "").upper()
    other = (row.get("other_allele") or row.get("hm_inferOtherAllele") or "").upper()
    if not _BASES.fullmatch(effect):
        return "no-allele"
    try:
        weight = float(row.get("effect_weight") or "")
    except ValueError:
        return "no-weight"
    if not math.isfinite(weight):
        return "no-weight"
    known = other if _BASES.fullmatch(other) and other != effect else None  # "C/T": it could be either
    return Weight(named(row[chromosome]), int(row[position]), effect, known, weight)
