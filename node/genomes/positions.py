"""Everybody's genotypes at named positions: pharmacogenes, from a positions file that the hospital brings.

The file is a VCF of positions of one build, such as PharmCAT's `pharmcat_positions.vcf`; none ships with this
package. A position that a load does not have is absent, not the reference: only a call says what someone has.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from node.genomes.store import GenomeStore
from node.ingest.readers.vcf import VariantFile

CALLS = pa.schema(
    [
        pa.field("person_id", pa.int64(), nullable=False),
        pa.field("rsid", pa.string()),  # of the positions file
        pa.field("chromosome", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("alternates", pa.list_(pa.string()), nullable=False),
        pa.field("genotype", pa.string(), nullable=False),
    ]
)


class OtherBuild(ValueError):
    """The positions are of another build than the genotypes, or one of them does not say."""


def calls_at(store: GenomeStore, name: str, positions: Path) -> pa.Table:
    """Return everybody's genotypes of a load at the positions of a file.

    Raises: OtherBuild; UnreadableSource.
    """
    file = VariantFile(positions)
    if file.build is None or file.build != store.about(name).build:
        raise OtherBuild("positions and genotypes are not known to be of one build")
    wanted: dict[tuple[str, int], str | None] = {}
    for batch in file.batches():
        columns = (batch.variants[column].to_pylist() for column in ("chromosome", "position", "rsid"))
        wanted |= {(chromosome, position): rsid for chromosome, position, rsid in zip(*columns, strict=True)}
    rows: list[dict[str, object]] = []
    for some in store.genotypes(name):
        persons = some.persons.tolist()
        for number, variant in enumerate(some.variants.to_pylist()):
            place = (variant["chromosome"], variant["position"])
            if place not in wanted:
                continue
            said = {field: variant[field] for field in ("chromosome", "position", "reference", "alternates")}
            said["rsid"] = wanted[place]
            rows += [
                said | {"person_id": person, "genotype": some.written(number, column)}
                for column, person in enumerate(persons)
            ]
    return pa.Table.from_pylist(rows, schema=CALLS)
