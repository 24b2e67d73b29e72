"""How fast variants come in, beside cyvcf2's bare iteration over the same file. Goal: half of it.

The iteration is bare indeed: it asks for no position, allele or genotype.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from cyvcf2 import VCF

from deid.vault import PseudonymKey, Vault
from node.genomes.store import GenomeStore
from node.ingest.readers.vcf import VariantFile
from privacy.rng import SecureBits
from tests.bench.figure import Figure

AGAINST = "cyvcf2 alone, goal 0.5"
SAMPLES = 2_000
BASES = "ACGT"


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield genotypes a second of processor time (others may use the machine), the best of three.

    "stored" is everything: pseudonyms, Parquet and its way to the disk.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for samples, variants in ((SAMPLES, 200 if quick else 2_000), (1, 20_000 if quick else 200_000)):
            path = _made(folder / f"{samples}.vcf", samples=samples, variants=variants)
            label = "one sample" if samples == 1 else f"{samples} samples"
            rates = {
                way.__name__.strip("_"): samples * variants / min(_seconds(way, path) for _ in range(3))
                for way in (_bare, _read, _stored)
            }
            for way in ("read", "stored"):
                yield Figure(f"VCF of {label}, {way}", rates[way], "genotypes/s", rates["bare"], AGAINST)


def _bare(path: Path) -> None:
    for _ in VCF(str(path)):
        pass


def _read(path: Path) -> None:
    for _ in VariantFile(path).batches():
        pass


def _stored(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        key = PseudonymKey(b"bench only " + bytes(21))
        vault = Vault.open(Path(name) / "vault.sqlite", key=key, bits=SecureBits())
        GenomeStore(Path(name) / "genomes").add(path, vault, namespace="patient")


def _seconds(way: Callable[[Path], None], path: Path) -> float:
    begin = time.process_time()
    way(path)
    return time.process_time() - begin


def _made(path: Path, *, samples: int, variants: int) -> Path:
    rng = np.random.default_rng(3)
    calls = np.array(["0/0", "0/1", "1/1", "./."])
    header = ["##fileformat=VCFv4.2", "##contig=<ID=1,length=248956422>"]
    header.append('##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">')
    names = "\t".join(f"S{number}" for number in range(samples))
    header.append(f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{names}")
    with path.open("w") as file:
        file.write("\n".join(header) + "\n")
        for number in range(variants):
            said = "\t".join(rng.choice(calls, samples, p=[0.7, 0.2, 0.09, 0.01]).tolist())
            reference, alternate = BASES[number % 4], BASES[(number + 1) % 4]
            file.write(f"1\t{1000 + 7 * number}\t.\t{reference}\t{alternate}\t50\tPASS\t.\tGT\t{said}\n")
    return path
